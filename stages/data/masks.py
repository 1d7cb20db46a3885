"""Masks as COCO writes them: checked once when a data set is loaded, decoded when a mask is asked for.

pycocotools rasterises the polygons; run lengths are expanded here. pycocotools trusts its input: a short run-length
string leaves memory uninitialised, and a damaged one or a polygon far outside the image crashes the interpreter. So it
gets checked polygons only, and its own `decode` is not used (it also warns with every call under NumPy 2).
"""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.stages.data.errors import InputError

RESAMPLING = "pil-nearest"
"""The rule by which masks are resized, `nearest_indices`; the candidate store's views have a word for theirs too."""

# Either the polygons of a mask, each float64 [2 * points] (x, y alternating, pixels), or int32 run lengths in column
# order that begin with zeros. Compact on purpose: a data set holds one for each ref.
Segmentation = tuple[NDArray[np.float64], ...] | NDArray[np.int32]


def parse_segmentation(segmentation: object, height: int, width: int) -> Segmentation | None:
    """Check the `segmentation` of a COCO annotation on an image of `height` x `width` pixels.

    Takes the three forms of COCO's instances.json: a list of polygons, `{"size": [h, w], "counts": [...]}` and
    `{"size": [h, w], "counts": "..."}`. Returns the compact form that `decode_segmentation` reads, or None when there
    is nothing to decode: no polygon has three points.

    Raises `InputError` for any other form, for a run-length mask of another size than the image's or whose runs do not
    fill it, and for points that are no numbers or lie further outside the image than it is large.
    """
    if isinstance(segmentation, list):
        return _parse_polygons(segmentation, height, width)
    if isinstance(segmentation, dict):
        return _parse_run_lengths(segmentation, height, width)
    raise InputError(
        f"expected a list of polygons or a run-length dict, found a {type(segmentation).__name__}; fix the annotation"
    )


def _parse_polygons(polygons: list[Any], height: int, width: int) -> tuple[NDArray[np.float64], ...] | None:
    parsed = []
    for polygon in polygons:
        try:
            xy = np.array(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            xy = np.empty((0, 0))
        if xy.ndim != 1 or len(xy) % 2:
            raise InputError("expected a polygon to be a flat list x1, y1, x2, y2, …, found none; fix the annotation")
        if len(xy) < 6:
            continue  # a point or a line covers nothing, and pycocotools takes four numbers for a box
        # NaN fails both comparisons.
        x, y = xy[0::2], xy[1::2]
        inside = (x >= -width) & (x <= 2 * width) & (y >= -height) & (y <= 2 * height)
        if not inside.all():
            bad = int(np.argmin(inside))
            raise InputError(
                f"expected polygon points near the {height}x{width} (height x width) image, "
                f"found ({x[bad]:g}, {y[bad]:g}); fix the annotation"
            )
        parsed.append(xy)
    return tuple(parsed) or None


def _parse_run_lengths(mask: dict[str, Any], height: int, width: int) -> NDArray[np.int32]:
    size, counts = mask.get("size"), mask.get("counts")
    if size != [height, width]:
        raise InputError(
            f"expected a mask of the image's size {[height, width]} (height, width), found {size!r}; "
            "the annotation or the image record is wrong"
        )
    if isinstance(counts, str | bytes):
        runs = _runs_of_string(counts.encode("utf-8") if isinstance(counts, str) else counts)
    elif isinstance(counts, list) and all(type(run) is int for run in counts):
        runs = counts
    else:
        raise InputError("expected `counts` to be a list of integers or a string, found neither; fix the annotation")
    if min(runs, default=0) < 0 or sum(runs) != height * width:
        raise InputError(
            f"expected runs that add up to {height} x {width} = {height * width} pixels, found {len(runs)} runs with "
            f"the sum {sum(runs)}; fix the annotation"
        )
    return np.array(runs, dtype=np.int32)


def _runs_of_string(counts: bytes) -> list[int]:
    """The run lengths in a compressed COCO string (the format of maskApi.c, `rleFrString`).

    A number is little-endian in groups of five bits, each stored as a character from "0" on, bit 0x20 says that another
    follows and bit 0x10 of the last is the sign; from the fourth number on it is the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        code = character - 48
        # Seven groups hold any run of an image.
        if not 0 <= code < 64 or shift > 30:
            raise InputError("expected a compressed COCO run-length string, found other characters; fix the annotation")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise InputError("expected a compressed COCO run-length string, found one that is cut off; fix the annotation")
    return runs


def decode_segmentation(segmentation: Segmentation, height: int, width: int) -> NDArray[np.bool_]:
    """The mask, bool [height, width], of what `parse_segmentation` returned for the same height and width.

    Several polygons are merged: a pixel that lies in any of them is set (COCO's polygons are the parts of one object).
    """
    if isinstance(segmentation, tuple):
        merged = coco_mask.merge(coco_mask.frPyObjects(list(segmentation), height, width))
        runs = np.array(_runs_of_string(merged["counts"]), dtype=np.int32)
    else:
        runs = segmentation
    columns = np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(width, height)
    # Row order in memory: COCO counts down the columns, which makes every later row-wise step slow.
    return np.ascontiguousarray(columns.T)


def encode_mask(mask: NDArray[np.bool_]) -> NDArray[np.int32]:
    """`mask`, bool [H, W], as the run lengths that `decode_segmentation` reads."""
    pixels = mask.T.ravel()
    cuts = 1 + np.flatnonzero(pixels[1:] != pixels[:-1])
    first = [0] if len(pixels) == 0 or not pixels[0] else [0, 0]  # runs begin with zeros
    return np.diff(np.concatenate([first, cuts, [len(pixels)]])).astype(np.int32)


def is_empty(segmentation: Segmentation, height: int, width: int) -> bool:
    """Whether no pixel is in the mask of what `parse_segmentation` returned for this height and width."""
    if isinstance(segmentation, tuple):
        return not coco_mask.area(coco_mask.frPyObjects(list(segmentation), height, width)).any()
    return not segmentation[1::2].any()


def unite_segmentations(parts: Sequence[Segmentation], height: int, width: int) -> Segmentation:
    """The pixels that are in any of `parts`, of an image of this height and width; of no parts, no pixel."""
    polygons = [part for part in parts if isinstance(part, tuple)]
    if parts and len(polygons) == len(parts):
        return tuple(polygon for part in polygons for polygon in part)  # decoded together, they are merged
    united = np.zeros((height, width), dtype=bool)
    for part in parts:
        united |= decode_segmentation(part, height, width)
    return encode_mask(united)


@functools.lru_cache(maxsize=1024)  # a data set has some hundred sides; at 480 these are 4 MB
def nearest_indices(in_size: int, out_size: int) -> NDArray[np.int64]:
    """For each of `out_size` pixels of a row, the source pixel that PIL's NEAREST takes; int64 [out_size], read-only.

    PIL adds `in_size / out_size` to itself in float64 and cuts off, so that a pixel centre on the border between two
    source pixels goes to either: 640 -> 480 differs in 99 columns from the same rule in whole numbers, 128 -> 96 in
    17. The original LAVT resizes masks so; the candidate store's views make the same choice.
    """
    if in_size < 1 or out_size < 1:
        raise ValueError(f"expected sizes of at least one pixel, found {in_size} and {out_size}")
    steps = np.full(out_size, in_size / out_size)
    steps[0] /= 2
    indices = np.add.accumulate(steps).astype(np.int64)
    indices.setflags(write=False)  # shared by all who ask
    return indices


def resize_mask(mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
    """`mask`, bool [H, W], at bool [size, size], to the bit as PIL's `resize((size, size), NEAREST)`.

    The aspect is not kept (LAVT and the paper: 480x480).
    """
    height, width = mask.shape
    return mask[nearest_indices(height, size)][:, nearest_indices(width, size)]
