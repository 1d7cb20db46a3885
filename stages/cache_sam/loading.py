"""Images read and decoded ahead of the device, in a thread, and handed to it several at once."""

import os
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from semires.cache.files import FileRecord
from semires.stages.cache_sam.concepts import digest_of
from semires.stages.cache_sam.held import file_record
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError, printable
from semires.stages.data.images import Picture, load_picture, no_file

# Decoded images that wait for the device, whatever their size. More would hide longer hiccups of a disk.
IMAGES_AHEAD = 2
# Pixels of the images of a batch, and of those that wait behind it: 54 of COCO's size, one of 16 megapixels. What is
# found in an image grows with its size as well.
MAX_PIXELS = 2**24


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedImage:
    """A source with its pixels, uint8 [H, W, 3], RGB, its file's record and whether the pixels were scaled (`Picture`);
    or with the reason why training could not decode it either."""

    source: ImageSource
    pixels: NDArray[np.uint8] | None = None
    record: FileRecord | None = None
    is_scaled: bool = False
    reason: str = ""

    @property
    def num_pixels(self) -> int:
        """Height times width; 0 where it could not be decoded."""
        return 0 if self.pixels is None else self.pixels.shape[0] * self.pixels.shape[1]


def load_ahead(
    sources: Iterable[ImageSource], at_once: int, may_hold: Callable[[], int]
) -> Generator[list[LoadedImage], None, None]:
    """The sources in their order, decoded, in batches of 1 to `at_once`; while one is worked on the next is decoded.

    `sources` is drawn from in the calling thread, before a batch is given out: with several workers each draw is a
    claim. It goes on while fewer than `may_hold()` images are held, that batch among them, or none is; a batch takes no
    more than half of them while there are more to draw, so that some are left to decode. Large images are held and
    given out in smaller numbers (`MAX_PIXELS`) from the second batch on.
    """
    asked: SimpleQueue[ImageSource | None] = SimpleQueue()
    answers: SimpleQueue[LoadedImage | BaseException] = SimpleQueue()
    # A daemon, and never waited for: a read that hangs on a network must not keep a stopped run from committing, nor
    # the process from ending, as a thread of concurrent.futures would.
    Thread(target=_decode_all, args=(asked, answers), name="load", daemon=True).start()
    undrawn = iter(sources)
    num_held, all_drawn, largest = 0, False, 1
    try:
        while True:
            # The sizes of what is not decoded are not known: as large as those of the last batch.
            most = max(1 + IMAGES_AHEAD, 2 * MAX_PIXELS // largest)
            while not all_drawn and (num_held == 0 or num_held < min(most, may_hold())):
                source = next(undrawn, None)
                if source is None:
                    all_drawn = True
                else:
                    asked.put(source)
                    num_held += 1
            if num_held == 0:
                return
            num_wanted = min(at_once, num_held if all_drawn else (num_held + 1) // 2)
            batch, error = _collect(answers, num_wanted)
            num_held -= len(batch)
            largest = max((image.num_pixels for image in batch), default=0) or 1
            if batch:
                yield batch
            if error is not None:
                raise error
    finally:
        try:
            while True:
                asked.get_nowait()
        except Empty:
            asked.put(None)


def _collect(
    answers: "SimpleQueue[LoadedImage | BaseException]", number: int
) -> tuple[list[LoadedImage], BaseException | None]:
    """Up to `number` images, fewer where they are large, or up to the first error, which then comes with them."""
    batch: list[LoadedImage] = []
    num_pixels = largest = 0
    while len(batch) < number and (not batch or num_pixels + largest <= MAX_PIXELS):
        answer = answers.get()
        if isinstance(answer, BaseException):
            return batch, answer
        batch.append(answer)
        num_pixels += answer.num_pixels
        largest = max(largest, answer.num_pixels)
    return batch, None


def _decode_all(asked: "SimpleQueue[ImageSource | None]", answers: "SimpleQueue[LoadedImage | BaseException]") -> None:
    while (source := asked.get()) is not None:
        try:
            answers.put(decode(source))
        except BaseException as error:  # raised where the image is waited for
            answers.put(error)


def decode(source: ImageSource) -> LoadedImage:
    """Decode as training does, `load_image` and the recorded size; what that refuses comes back with the reason."""
    try:
        picture, record = _read(source)
    except InputError as error:
        # The reason goes into the store, which is passed on: the folders of this machine are nobody's business.
        reason = str(error).removeprefix(f"{source.path}: ").replace(str(source.path), source.path.name)
        return LoadedImage(source=source, reason=printable(reason))
    found = picture.pixels.shape[:2]
    if source.size is not None and found != source.size:
        reason = f"expected {source.size} pixels (height, width) as recorded, found {found}; use the original file"
        return LoadedImage(source=source, reason=reason)
    return LoadedImage(source=source, pixels=picture.pixels, record=record, is_scaled=picture.is_scaled)


def _read(source: ImageSource) -> tuple[Picture, FileRecord]:
    """The picture and the record of one open file: of the same bytes, whoever replaces it meanwhile."""
    try:
        with source.path.open("rb") as file:
            before = os.fstat(file.fileno())
            picture = load_picture(source.path, upright=source.upright, file=file)
            record = file_record(file)
            if (before.st_size, before.st_mtime_ns) != (record.num_bytes, record.mtime_ns):
                raise OSError("it changed while it was read")
            if source.concepts is not None:
                record = replace(record, words=digest_of(source.concepts))
    except FileNotFoundError as error:
        raise no_file(source.path) from error
    except OSError as error:
        raise InputError(
            f"{source.path}: expected a file that can be read, found {error.strerror or error}; run the command again"
        ) from error
    return picture, record
