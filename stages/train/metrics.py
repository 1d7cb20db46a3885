"""Overall IoU, mean IoU and precision at IoU thresholds, as LAVT and the paper measure them."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semires.stages.data.errors import InputError

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)


@dataclass(frozen=True, kw_only=True)
class SegmentationScores:
    """Scores of a split, in per cent.

    oiou: sum of intersections over sum of unions. miou: mean IoU. precision: share of expressions with IoU >= X for
    each X of PRECISION_THRESHOLDS. num_samples: the expressions measured.
    """

    oiou: float
    miou: float
    precision: dict[float, float]
    num_samples: int


@dataclass(frozen=True, kw_only=True)
class ExpressionCounts:
    """Pixels of each of N expressions, int64 [N] each, on the CPU: of prediction and truth together, and of the truth.

    They are exact: processes exchange them to score together.
    """

    intersections: Tensor
    unions: Tensor
    areas: Tensor

    @classmethod
    def joined(cls, parts: Sequence["ExpressionCounts"]) -> "ExpressionCounts":
        """The counts of several, one after another."""
        return cls(
            intersections=torch.cat([part.intersections for part in parts]),
            unions=torch.cat([part.unions for part in parts]),
            areas=torch.cat([part.areas for part in parts]),
        )

    def rows(self, order: Tensor) -> "ExpressionCounts":
        """The counts of some expressions, int64 [n], in this order."""
        return ExpressionCounts(
            intersections=self.intersections[order], unions=self.unions[order], areas=self.areas[order]
        )

    def scores(self) -> SegmentationScores:
        """The scores of all of them. Raises InputError where there are none."""
        return scores_from_counts(self.intersections, self.unions)


class SegmentationMetrics:
    """Collects intersection and union of every expression, in the order of the updates.

    Counts are exact: int64 on the device of the masks until asked for, so updating never waits for the device. They lie
    in one tensor with room for `capacity` expressions, more where more come: thousands of small ones between the
    batches' large ones would keep the allocator from using the memory of those again.
    """

    def __init__(self, capacity: int = 1024) -> None:
        self._counts = torch.empty(3, max(capacity, 1), dtype=torch.int64)
        self._num = 0

    def update(self, pred: Tensor, target: Tensor) -> None:
        """Add B expressions. pred, target: bool [B, S, S]; sizes may differ between updates.

        Raises InputError where shapes or dtypes differ: the metric compares masks at one size.
        """
        if pred.dtype != torch.bool or target.dtype != torch.bool or pred.shape != target.shape or pred.ndim != 3:
            raise InputError(
                f"expected prediction and target as bool [B, S, S] alike, found {pred.dtype} {list(pred.shape)} and "
                f"{target.dtype} {list(target.shape)}: resize and threshold them first"
            )
        first, self._num = self._num, self._num + len(pred)
        if self._num > self._counts.shape[1] or self._counts.device != pred.device:
            grown = self._counts.new_empty(3, max(self._num * 2, self._counts.shape[1]), device=pred.device)
            grown[:, :first] = self._counts[:, :first]
            self._counts = grown
        rows = self._counts[:, first : self._num]
        for row, masks in zip(rows, (pred & target, pred | target, target), strict=True):
            torch.sum(masks, dim=(1, 2), out=row)

    def counts(self) -> ExpressionCounts:
        """The counts of everything added."""
        intersections, unions, areas = self._counts[:, : self._num].cpu().clone()
        return ExpressionCounts(intersections=intersections, unions=unions, areas=areas)


def ious_from_counts(intersections: Tensor, unions: Tensor) -> Tensor:
    """IoU float64 [N] from int64 [N] counts; an empty union counts 0."""
    return intersections.double() / unions.clamp(min=1)


def scores_from_counts(intersections: Tensor, unions: Tensor) -> SegmentationScores:
    """Scores from int64 [N] intersections and unions, for counts gathered from several processes.

    Raises InputError where N is 0.
    """
    if len(intersections) == 0:
        raise InputError("expected at least one expression to score, found none: check the split and its data")
    ious = ious_from_counts(intersections, unions)
    return SegmentationScores(
        oiou=100.0 * int(intersections.sum()) / max(int(unions.sum()), 1),
        miou=100.0 * float(ious.mean()),
        # Division in float64 rounds 7 pixels of 10 to the float 0.7 is, so >= is exact at the thresholds.
        precision={threshold: 100.0 * int((ious >= threshold).sum()) / len(ious) for threshold in PRECISION_THRESHOLDS},
        num_samples=len(ious),
    )
