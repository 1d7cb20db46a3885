"""Images read and decoded ahead of the device, in a thread."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

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
    executor = ThreadPoolExecutor(1, thread_name_prefix="load")
    pending: deque[Future[LoadedImage]] = deque()
    try:
        for source in sources:
            pending.append(executor.submit(decode, source))
            if len(pending) > depth:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        # Without waiting: a read that hangs on a network must not keep a stopped run from committing.
        executor.shutdown(wait=False, cancel_futures=True)


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
