"""The two pictures of a prediction, mask and overlay: where they lie, and that none takes another's place unasked."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.replacing import replacing_file


@dataclass(frozen=True, kw_only=True)
class PredictionFiles:
    """Where the pictures of a prediction in `image` go.

    output: the mask's file, its name ending in .png, the overlay beside it; or a folder, in which both are named after
    the image, with a number where that name is taken. overwrite: what is there is replaced.

    InputError for a file that is there and not to be replaced, and for one that is no PNG, in which a mask is not kept
    as it is.
    """

    output: Path
    image: Path
    overwrite: bool = False

    def __post_init__(self) -> None:
        suffix = self.output.suffix.lower()
        if suffix != ".png" and suffix in Image.registered_extensions() and not self.output.is_dir():
            raise InputError(f"--output: expected a folder, or a file name ending in .png, found {self.output}")
        if self._is_file and not self.overwrite:
            for path in next(self._names()):
                if path.exists():
                    raise _taken(path)

    def save(self, mask: Image.Image, overlay: Image.Image) -> tuple[Path, Path]:
        """Write both pictures, each whole or not at all; returns where."""
        self.output.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_file:
            self.output.mkdir(exist_ok=True)
        paths = self._take()
        try:
            for path, picture in zip(paths, (mask, overlay), strict=True):
                with replacing_file(path) as temporary:
                    picture.save(temporary, format="PNG")
        except BaseException:
            for path in paths:
                if path.is_file() and not path.stat().st_size:
                    path.unlink()
            raise
        return paths

    @property
    def _is_file(self) -> bool:
        return self.output.suffix.lower() == ".png" and not self.output.is_dir()

    def _names(self) -> Iterator[tuple[Path, Path]]:
        if self._is_file:
            yield self.output, self.output.with_stem(f"{self.output.stem}_overlay")
            return
        for number in itertools.count(1):
            stem = self.image.stem if number == 1 else f"{self.image.stem}-{number}"
            yield self.output / f"{stem}_mask.png", self.output / f"{stem}_overlay.png"

    def _take(self) -> tuple[Path, Path]:
        """The first names that are free, taken by empty files: another process may be at the same image."""
        for paths in self._names():
            if self.overwrite:
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
