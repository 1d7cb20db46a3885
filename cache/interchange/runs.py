"""Run lengths: COCO's form of a mask, parsed from its text, drawn from polygons, and measured without decoding it.

Runs are COCO's uncompressed counts, int64: lengths of alternating runs down the columns of the image, the first of
clear pixels (and of length 0 where the first pixel is set).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.cache.interchange.files import bad_file, shown

Box = tuple[int, int, int, int]
"""x0, y0, x1, y1 in pixels, right and bottom exclusive; all zero for an empty mask."""

# Characters of one compressed count: 35 bits, more than files.MAX_PIXELS needs and less than an int64 holds.
_MAX_COUNT_LENGTH = 7


def decompress_counts(path: Path, where: str, counts: str) -> NDArray[np.int64]:
    """Counts of COCO's compressed text as runs; StoreError where the text is malformed.

    Each count is a little-endian number of 5-bit digits, characters "0" to "o", whose bit 5 says that another digit
    follows and whose last digit's bit 4 is the sign; from the fourth on a count is a difference to the one two before.
    Parsed here and not by pycocotools, whose C reads beyond a text that ends within a number.
    """
    digits = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - ord("0")
    if digits.size and (digits.min() < 0 or digits.max() > 0x3F):
        raise bad_file(path, where, 'counts of characters "0" to "o"', shown(counts))
    ends = np.flatnonzero((digits & 0x20) == 0)
    if not digits.size or ends.size == 0 or ends[-1] != len(digits) - 1:
        raise bad_file(path, where, "counts that end with a whole number", shown(counts))
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MAX_COUNT_LENGTH:
        expected = f"counts of at most {_MAX_COUNT_LENGTH} characters each"
        raise bad_file(path, where, expected, f"one of {sizes.max()}")
    position = np.arange(len(digits)) - np.repeat(starts, sizes)
    lengths = np.add.reduceat((digits & 0x1F) << (5 * position), starts)
    lengths -= np.where(digits[ends] & 0x10, 1 << (5 * sizes), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def parse_integers(path: Path, where: str, value: object) -> NDArray[np.int64]:
    """A JSON list of integers as int64 [N]; StoreError where it is anything else."""
    # Types first: numpy would turn texts and fractions into integers, or a mixed list into one of long texts. The
    # bound leaves room to add two.
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        raise bad_file(path, where, "counts as a list of integers", shown(value))
    if value and (max(value) >= 2**62 or min(value) <= -(2**62)):
        raise bad_file(path, where, "counts below the number of pixels", shown(max(value, key=abs)))
    return np.array(value, np.int64)


def check_runs(path: Path, where: str, runs: NDArray[np.int64], *, num_pixels: int) -> None:
    """Raise StoreError where the runs of a file's mask do not fill its image of `num_pixels` exactly."""
    if runs.size and (runs.min() < 0 or runs.max() > num_pixels):
        bad = runs[(runs < 0) | (runs > num_pixels)][0]
        raise bad_file(path, where, f"runs of 0 to {num_pixels} pixels", f"a run of {bad}")
    if runs.sum() != num_pixels:
        raise bad_file(path, where, f"runs that sum to the size's {num_pixels} pixels", f"a sum of {runs.sum()}")


def draw_polygons(path: Path, where: str, polygons: list[Any], height: int, width: int) -> NDArray[np.int64]:
    """The runs of COCO polygons, each x1, y1, x2, y2, … in pixels, as pycocotools draws them: a pixel in any is set.

    Those of fewer than three points cover nothing. StoreError for what is no polygon, and for points further outside
    the image than it is large: pycocotools trusts its input, and crashes on some.
    """
    kept = []
    for polygon in polygons:
        numbers = polygon if isinstance(polygon, list) else None
        if numbers is None or len(numbers) % 2 or not set(map(type, numbers)) <= {int, float}:
            raise bad_file(path, where, "polygons as lists [x1, y1, x2, y2, …]", shown(polygon))
        for low, side in ((0, width), (1, height)):
            # NaN is not between either.
            outside = [value for value in numbers[low::2] if not -side <= value <= 2 * side]
            if outside:
                raise bad_file(path, where, f"polygon points near the {height} x {width} image", shown(outside[0]))
        if len(numbers) >= 6:
            kept.append([float(value) for value in numbers])
    if not kept:
        return np.array([height * width], np.int64)
    merged = coco_mask.merge(coco_mask.frPyObjects(kept, height, width))
    return decompress_counts(path, where, merged["counts"].decode("ascii"))


def box_of_runs(runs: NDArray[np.int64], height: int) -> Box:
    """The tight box of the mask whose runs go down columns of `height` pixels."""
    stops = np.cumsum(runs)[1::2]
    starts = stops - runs[1::2]
    starts, stops = starts[starts < stops], stops[starts < stops]
    if not len(starts):
        return 0, 0, 0, 0
    # A run that goes on in the next column has a column's last pixel and the next one's first.
    if np.any(starts // height != (stops - 1) // height):
        y0, y1 = 0, height
    else:
        y0, y1 = int((starts % height).min()), int(((stops - 1) % height).max()) + 1
    return int(starts[0]) // height, y0, int(stops[-1] - 1) // height + 1, y1
