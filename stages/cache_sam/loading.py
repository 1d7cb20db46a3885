"""Images read and decoded ahead of the device, in a thread."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread

import numpy as np
from numpy.typing import NDArray

from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedImage:
    """A source with its pixels, uint8 [H, W, 3], RGB; or with the reason why training could not decode it either."""

    source: ImageSource
    pixels: NDArray[np.uint8] | None = None
    reason: str = ""


def load_ahead(sources: Iterable[ImageSource], depth: int) -> Generator[LoadedImage, None, None]:
    """The sources in their order, decoded; at most `depth` beyond the one given out are held or being read.

    `sources` is drawn from as late as that allows, in the calling thread: with several workers each draw is a claim.
    """
    asked: SimpleQueue[ImageSource | None] = SimpleQueue()
    answers: SimpleQueue[LoadedImage | BaseException] = SimpleQueue()
    # A daemon, and never waited for: a read that hangs on a network must not keep a stopped run from committing, nor
    # the process from ending, as a thread of concurrent.futures would.
    Thread(target=_decode_all, args=(asked, answers), name="load", daemon=True).start()
    num_pending = 0
    try:
        for source in sources:
            asked.put(source)
            num_pending += 1
            if num_pending > depth:
                num_pending -= 1
                yield _image_of(answers.get())
        for _ in range(num_pending):
            yield _image_of(answers.get())
    finally:
        try:
            while True:
                asked.get_nowait()
        except Empty:
            asked.put(None)


def _decode_all(asked: "SimpleQueue[ImageSource | None]", answers: "SimpleQueue[LoadedImage | BaseException]") -> None:
    while (source := asked.get()) is not None:
        try:
            answers.put(decode(source))
        except BaseException as error:  # raised where the image is waited for
            answers.put(error)


def _image_of(answer: LoadedImage | BaseException) -> LoadedImage:
    if isinstance(answer, BaseException):
        raise answer
    return answer


def decode(source: ImageSource) -> LoadedImage:
    """Decode as training does, `load_image` and the recorded size; what that refuses comes back with the reason."""
    try:
        pixels = load_image(source.path)
    except InputError as error:
        # The reason goes into the store, which is passed on: the folders of this machine are nobody's business.
        reason = str(error).removeprefix(f"{source.path}: ").replace(str(source.path), source.path.name)
        return LoadedImage(source=source, reason=reason)
    found = pixels.shape[:2]
    if source.size is not None and found != source.size:
        reason = f"expected {source.size} pixels (height, width) as recorded, found {found}; use the original file"
        return LoadedImage(source=source, reason=reason)
    return LoadedImage(source=source, pixels=pixels)
