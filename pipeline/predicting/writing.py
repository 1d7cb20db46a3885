"""Writing answers: pictures, lines of JSON, what is said of each on the screen, and how many there were."""

from collections.abc import Callable, Iterator
from typing import TextIO

from PIL import Image

from semires.pipeline.predicting.answering import Answer
from semires.pipeline.predicting.lines_file import write_line
from semires.pipeline.predicting.picture_files import PictureFiles
from semires.pipeline.wording import counted
from semires.stages.data.errors import printable
from semires.stages.train.prediction import overlay


class AnswerWriter:
    """Writes one answer after the other, and counts.

    files: where pictures go; lines: where lines of JSON go; either may be none. The first `num_named` masks that are
    pictures are said by `say`, a line each. num_asked: expressions in all.
    """

    def __init__(
        self,
        files: PictureFiles | None,
        lines: TextIO | None,
        *,
        num_asked: int,
        num_named: int,
        say: Callable[[str], None],
    ) -> None:
        self.num_done = 0
        self.num_failed = 0
        """Images that could not be read."""
        self._files, self._lines = files, lines
        self._num_asked, self._num_named = num_asked, num_named
        self._say = say
        self._num_unmatched = self._num_without = 0

    def write(self, answer: Answer, *, is_snapped: bool) -> None:
        """Write what was found; of an image that cannot be read, that. is_snapped: masks are made of candidates."""
        pictures = None
        if answer.prediction is None:
            self.num_failed += 1
        else:
            self._num_unmatched += answer.is_snapped is False
            self._num_without += is_snapped and answer.is_snapped is None
            if self._files is not None and answer.image.pixels is not None:
                mask = answer.prediction.mask
                picture = overlay(answer.image.pixels, mask)
                path = answer.image.source.path
                pictures = self._files.save(path, answer.expression, Image.fromarray(mask), picture)
                if self.num_done < self._num_named:
                    what = f"{mask.mean() * 100:.1f}% of the image"
                    if self._num_asked > 1:
                        what = f"{printable(str(path))}, {printable(answer.expression)}: {what}"
                    self._say(f"{what}; written: {pictures[0]}, {pictures[1]}")
        if self._lines is not None:
            write_line(self._lines, answer, pictures)
        self.num_done += answer.prediction is not None

    def summary(self, lines_name: str | None, store: str | None) -> Iterator[str]:
        """What is left to say of all answers. lines_name: the file of the lines; store: whose candidates were asked."""
        masks = counted(self.num_done, "mask")
        if self._files is not None and self.num_done > self._num_named:
            yield f"{self.num_done - self._num_named} more masks and overlays in {self._files.output}"
        if lines_name is not None:
            yield f"{masks}; written: {lines_name}"
        if self._num_unmatched:
            yield f"no candidate matches {self._num_unmatched} of {masks}: left as the model drew them"
        if self._num_without:
            yield f"no candidates in {store} of {self._num_without} of {masks}' images: left as the model drew them"
