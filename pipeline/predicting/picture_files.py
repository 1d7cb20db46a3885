"""The two pictures of a prediction, mask and overlay: where they lie, and that none takes another's place unasked."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.replacing import replacing_file

_MOST_LETTERS = 40


class PictureFiles:
    """Where the pictures of predictions go.

    output: the mask's file, its name ending in .png, the overlay beside it, for one prediction; or a folder, in which
    both are named after the image and, where several expressions are asked about one (`names_expressions`), after the
    expression, with a number where that name is taken. overwrite: what an earlier command wrote is replaced; of one
    command no picture ever replaces another.

    InputError for a file that is there and not to be replaced, for one that is no PNG, in which a mask is not kept as
    it is, and for one file of several predictions.
    """

    def __init__(
        self, output: Path, *, overwrite: bool = False, names_expressions: bool = False, is_single: bool = True
    ) -> None:
        suffix = output.suffix.lower()
        if suffix != ".png" and suffix in Image.registered_extensions() and not output.is_dir():
            raise InputError(f"--output: expected a folder, or a file name ending in .png, found {output}")
        self.output = output
        self._overwrite = overwrite
        self._names_expressions = names_expressions
        self._is_file = suffix == ".png" and not output.is_dir()
        self._written: set[Path] = set()
        if self._is_file and not is_single:
            raise InputError(f"--output: expected a folder for several masks, found {output}; give one")
        if self._is_file and not overwrite:
            for path in next(self._names(Path(), "")):
                if path.exists():
                    raise _taken(path)

    def save(self, image: Path, expression: str, mask: Image.Image, overlay: Image.Image) -> tuple[Path, Path]:
        """Write both pictures, each whole or not at all; returns where."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_file:
            self.output.mkdir(exist_ok=True)
        paths = self._take(image, expression)
        try:
            for path, picture in zip(paths, (mask, overlay), strict=True):
                with replacing_file(path) as temporary:
                    picture.save(temporary, format="PNG")
        except BaseException:
            for path in paths:
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
            raise
        self._written.update(paths)
        return paths

    def _names(self, image: Path, expression: str) -> Iterator[tuple[Path, Path]]:
        if self._is_file:
            yield self.output, self.output.with_stem(f"{self.output.stem}_overlay")
            return
        stem = image.stem
        if self._names_expressions:
            words = re.sub(r"[^0-9A-Za-z]+", "-", expression).strip("-").lower()[:_MOST_LETTERS].strip("-")
            stem = f"{stem}-{words}" if words else stem
        for number in itertools.count(1):
            numbered = stem if number == 1 else f"{stem}-{number}"
            yield self.output / f"{numbered}_mask.png", self.output / f"{numbered}_overlay.png"

    def _take(self, image: Path, expression: str) -> tuple[Path, Path]:
        """The first names that are free, taken by empty files: another process may be at the same image."""
        for paths in self._names(image, expression):
            if self._overwrite and self._written.isdisjoint(paths):
                return paths
            taken = list[Path]()
            try:
                for path in paths:
                    path.touch(exist_ok=False)
                    taken.append(path)
            except FileExistsError:
                for path in taken:
                    path.unlink()
                continue
            return paths
        raise _taken(self.output)


def _taken(path: Path) -> InputError:
    return InputError(f"--output: expected a new file, found {path} there: choose another name, or give --overwrite")
