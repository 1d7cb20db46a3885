"""How well one generator's masks agree with another's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Masks = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How the masks of a contestant agree with SAM's generator's, over all images.

    `equal` is the share of SAM's masks that the contestant has bit by bit, `mean_iou` and `lowest_iou` are of the best
    IoU of each of SAM's masks with any of the contestant's. All are None where SAM's generator has no mask.
    """

    equal: float | None
    mean_iou: float | None
    lowest_iou: float | None


NOT_COMPARED = Agreement(equal=None, mean_iou=None, lowest_iou=None)
"""Of masks that there is nothing to compare with."""


def agreement(found: Sequence[Masks], expected: Sequence[Masks]) -> Agreement:
    """Compare masks bool [M, H, W] with SAM's, bool [N, H, W], image by image."""
    ious = np.concatenate([_best_ious(*pair) for pair in zip(found, expected, strict=True)])
    if len(ious) == 0:
        return NOT_COMPARED
    # An IoU of 1 is equality: intersection and union are counted in whole pixels.
    return Agreement(equal=float((ious == 1).mean()), mean_iou=float(ious.mean()), lowest_iou=float(ious.min()))


def _best_ious(found: Masks, expected: Masks) -> NDArray[np.float64]:
    """Float64 [N]: of each expected mask, the highest IoU with any that was found; two empty masks are equal."""
    if len(found) == 0 or len(expected) == 0:
        return np.zeros(len(expected))
    pixels = expected.shape[1] * expected.shape[2]
    shared = np.zeros((len(expected), len(found)))
    one, other = expected.reshape(len(expected), pixels), found.reshape(len(found), pixels)
    for start in range(0, pixels, 2**16):  # float32 counts up to 2^24 exactly
        part = slice(start, start + 2**16)
        shared += one[:, part].astype(np.float32) @ other[:, part].astype(np.float32).T
    union = one.sum(axis=1)[:, None] + other.sum(axis=1)[None] - shared
    best: NDArray[np.float64] = np.where(union > 0, shared / np.maximum(union, 1), 1.0).max(axis=1)
    return best
