"""gIoU, cIoU, N-acc and T-acc: scores where an expression may mean several objects, or nothing on the image.

As GRES defines them (Liu, Ding, Jiang: "GRES: Generalized Referring Expression Segmentation", CVPR 2023, section 5 and
the authors' ReLA). A model without a head that says "no target", as LAVT is, is taken to say so by a mask of fewer than
50 pixels, which is then cleared.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from semires.stages.data.errors import InputError

FEWEST_PIXELS = 50
"""A prediction of fewer pixels, at the size that is measured at, says that there is no target."""


@dataclass(frozen=True, kw_only=True)
class GeneralizedScores:
    """Scores of a split, in per cent.

    giou: mean IoU, where an expression without a target counts 100 if that is what the model says, else 0. ciou: sum
    of intersections over sum of unions. n_acc: share of the expressions without a target of which the model says so,
    t_acc: of those with one of which it does not; None where there is no such expression. num_no_target,
    num_samples: the expressions without a target, and all.
    """

    giou: float
    ciou: float
    n_acc: float | None
    t_acc: float | None
    num_no_target: int
    num_samples: int


def generalized_scores(intersections: Tensor, unions: Tensor, areas: Tensor, no_target: Tensor) -> GeneralizedScores:
    """Scores of N expressions from their pixels: int64 [N] of prediction and truth together, and of the truth alone.

    no_target: bool [N], the expressions that mean nothing on the image: a target too small for the size that is
    measured at leaves no pixel either, and is none of these. Worked: a truth of 100 pixels, predicted 40 of it and no
    others, is a prediction that is cleared: IoU 0, a union of 100.

    Raises InputError where N is 0, or where an expression without a target has pixels of one.
    """
    if len(intersections) == 0:
        raise InputError("expected at least one expression to score, found none: check the split and its data")
    if areas[no_target].any():
        raise InputError("expected no pixels of a target where there is none, found some: check the split and its data")
    predicted = unions - areas + intersections
    says_none = predicted < FEWEST_PIXELS
    intersections = intersections.masked_fill(says_none, 0)
    unions = torch.where(says_none, areas, unions)
    ious = intersections.double() / unions.clamp(min=1)
    ious = torch.where(no_target, says_none.double(), ious)
    return GeneralizedScores(
        giou=100.0 * float(ious.mean()),
        ciou=100.0 * int(intersections.sum()) / max(int(unions.sum()), 1),
        n_acc=_share(says_none[no_target]),
        t_acc=_share(~says_none[~no_target]),
        num_no_target=int(no_target.sum()),
        num_samples=len(ious),
    )


def _share(right: Tensor) -> float | None:
    return 100.0 * int(right.sum()) / len(right) if len(right) else None
