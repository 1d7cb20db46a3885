"""Packing: masks of any form as the packed rows that the store keeps, a mask at a time.

Memory stays near the packed bits of one image, which the caller has checked (`files.check_packed_bytes`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semires.cache.bits import packed_boxes, packed_length
from semires.cache.candidates import Candidates


def candidates_of(
    image_id: int,
    width: int,
    bits: NDArray[np.uint8],
    predicted_iou: ArrayLike | None = None,
    stability_score: ArrayLike | None = None,
    points_xy: ArrayLike | None = None,
) -> Candidates:
    """Candidates of packed rows, uint8 [M, H, ceil(width / 8)]; areas and boxes are computed from them.

    `predicted_iou` [M], `stability_score` [M] and `points_xy` [M, 2] become float32; None: not known, NaN.
    """

    def column(values: ArrayLike | None, *axes: int) -> NDArray[np.float32]:
        shape = (len(bits), *axes)
        return np.full(shape, np.nan, np.float32) if values is None else np.asarray(values, np.float32).reshape(shape)

    return Candidates(
        image_id=image_id,
        height=bits.shape[1],
        width=width,
        bits=bits,
        # All at once, the counts of an image's bytes would take its memory a second time.
        area=np.array([np.bitwise_count(mask).sum() for mask in bits], np.int32),
        boxes_xyxy=packed_boxes(bits, width=width),
        predicted_iou=column(predicted_iou),
        stability_score=column(stability_score),
        points_xy=column(points_xy, 2),
    )


def pack_runs(runs: Sequence[NDArray[np.int64]], height: int, width: int) -> NDArray[np.uint8]:
    """Packed rows, uint8 [M, height, ceil(width / 8)], of masks given as runs (see runs.py), an array a mask.

    Each array's lengths must be at least 0 and sum to height * width: `runs.check_runs` comes first.
    """
    bits = np.zeros((len(runs), height, packed_length(width)), np.uint8)
    for mask, lengths in zip(bits, runs, strict=True):
        # Only the columns from the first set pixel to the last, from a whole byte on: most masks are small.
        first = int(lengths[0]) // height // 8 * 8
        num_after = int(lengths[-1]) if len(lengths) % 2 else 0
        stop = width - num_after // height
        if first >= stop:
            continue
        inside = lengths.copy()
        inside[0] -= first * height
        inside[-1] -= (width - stop) * height if len(lengths) % 2 else 0
        columns = np.repeat(np.arange(len(inside)) % 2 == 1, inside).reshape(stop - first, height)
        mask[:, first // 8 : packed_length(stop)] = np.packbits(columns, axis=0).T
    return bits


def pack_labels(labels: NDArray[np.integer], values: Sequence[int] | NDArray[np.integer]) -> NDArray[np.uint8]:
    """Packed rows, uint8 [M, H, ceil(W / 8)], of the pixels of `labels`, [H, W], that have each of `values`."""
    height, width = labels.shape
    bits = np.empty((len(values), height, packed_length(width)), np.uint8)
    for mask, value in zip(bits, values, strict=True):
        mask[:] = np.packbits(labels == value, axis=1)
    return bits
