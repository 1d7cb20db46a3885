"""Rows of a gallery: what is in one, and which refs are shown.

Axes: S side of the training images.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from semires.pipeline.audit.pictures.picture import Picture
from semires.pipeline.audit.pictures.reasons import Judgement
from semires.pipeline.audit.unlabeled import SIZES

Group = Literal[
    "largest gain",
    "largest loss",
    "worst label",
    "random label",
    "best prediction",
    "worst prediction",
    "random prediction",
]
LABEL_GROUPS: tuple[Group, ...] = ("largest gain", "largest loss", "worst label", "random label")
PREDICTION_GROUPS: tuple[Group, ...] = ("best prediction", "worst prediction", "random prediction")
Outcome = Literal["positive", "negative", "none", "unmatched", "prediction"]


@dataclass(frozen=True, kw_only=True)
class GalleryRow:
    """A ref with its pictures, in the order of `Kind`.

    outcome: of a label, whether matching gave it a higher ("positive"), lower or the same ("none") IoU with the truth,
    or no candidate qualified ("unmatched"). size: third of the split's refs by the area of their objects. iou_before:
    of the teacher's label, None of a prediction; iou_after: of the refined label, or of the prediction; in [0, 1].
    candidates: what matching made of those that share a pixel with the label; num_candidates: of the image in all.
    """

    group: Group
    ref_id: int
    image_id: int
    split: str
    expression: str
    outcome: Outcome
    size: str
    iou_before: float | None
    iou_after: float
    pictures: tuple[Picture, ...]
    candidates: tuple[Judgement, ...] = ()
    num_candidates: int = 0


def choose_rows(ranks: Sequence[tuple[Group, NDArray[np.int64]]], num_rows: int) -> list[tuple[Group, int]]:
    """Rows of each group in turn, as many of each, the first of its order that no group before it took.

    ranks: of each group the numbers of the rows that may be in it, the best first.
    """
    taken: set[int] = set()
    chosen = []
    for number, (group, order) in enumerate(ranks):
        count = num_rows * (number + 1) // len(ranks) - num_rows * number // len(ranks)
        free = [row for row in order.tolist() if row not in taken][:count]
        taken.update(free)
        chosen += [(group, row) for row in free]
    return chosen


def iou(mask: Tensor, truth: Tensor) -> float:
    """IoU of two masks, bool [S, S]; an empty union counts 0."""
    return int((mask & truth).sum()) / max(int((mask | truth).sum()), 1)


def size_name(area: int, limits: tuple[float, float]) -> str:
    """The third that an object of so many pixels is in; limits: as of `size_limits`."""
    low, high = limits
    return SIZES[int(area > low) + int(area > high)]
