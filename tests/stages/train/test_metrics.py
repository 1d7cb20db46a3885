"""oIoU, mIoU and P@X on hand-counted masks."""

import pytest
import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.metrics import (
    ExpressionCounts,
    SegmentationMetrics,
    ious_from_counts,
    scores_from_counts,
)


def masks(*counts: int, num_pixels: int = 16) -> Tensor:
    """One mask a count, its first pixels set: intersections are minima, unions maxima."""
    pixels = torch.arange(num_pixels).reshape(1, 4, num_pixels // 4)
    return pixels < torch.tensor(counts)[:, None, None]


def test_scores__hand_counted() -> None:
    metrics = SegmentationMetrics()
    metrics.update(masks(5, 10), masks(10, 10))
    metrics.update(masks(0), masks(4))
    scores = metrics.counts().scores()
    assert scores.oiou == pytest.approx(100 * 15 / 24)
    assert scores.miou == pytest.approx(100 * 1.5 / 3)
    assert scores.num_samples == 3
    assert scores.precision == {x: pytest.approx(100 * (2 if x == 0.5 else 1) / 3) for x in (0.5, 0.6, 0.7, 0.8, 0.9)}
    counts = metrics.counts()
    assert ious_from_counts(counts.intersections, counts.unions).tolist() == [0.5, 1.0, 0.0]


@pytest.mark.parametrize("threshold", [0.5, 0.6, 0.7, 0.8, 0.9])
def test_scores__a_threshold_is_reached_at_equality(threshold: float) -> None:
    metrics = SegmentationMetrics()
    metrics.update(masks(round(10 * threshold)), masks(10))
    precision = metrics.counts().scores().precision
    assert all(share == (100.0 if x <= threshold else 0.0) for x, share in precision.items())


def test_scores__an_empty_union_counts_zero() -> None:
    metrics = SegmentationMetrics()
    metrics.update(masks(0, 8), masks(0, 8))
    scores = metrics.counts().scores()
    assert (scores.oiou, scores.miou) == (100.0, 50.0)
    nothing = SegmentationMetrics()
    nothing.update(masks(0), masks(0))
    assert (nothing.counts().scores().oiou, nothing.counts().scores().miou) == (0.0, 0.0)


def test_counts__gathered_from_two_processes_score_as_one() -> None:
    whole, parts = SegmentationMetrics(), (SegmentationMetrics(), SegmentationMetrics())
    for index, (pred, target) in enumerate([(3, 5), (16, 2), (7, 7)]):
        whole.update(masks(pred), masks(target))
        parts[index % 2].update(masks(pred), masks(target))
    joined = ExpressionCounts.joined([part.counts() for part in parts])
    assert joined.intersections.dtype == joined.unions.dtype == joined.areas.dtype == torch.int64
    assert joined.scores() == whole.counts().scores()
    assert joined.rows(torch.tensor([2, 0])).areas.tolist() == [2, 5]


def test_counts__more_expressions_than_there_was_room_for() -> None:
    metrics = SegmentationMetrics(2)
    for number in (1, 2, 3):
        metrics.update(masks(*([number] * 3)), masks(*([number + 1] * 3)))
    found = metrics.counts()
    assert found.intersections.tolist() == [1, 1, 1, 2, 2, 2, 3, 3, 3]
    assert found.unions.tolist() == found.areas.tolist() == [2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_scores_from_counts__sums_are_exact_beyond_float32() -> None:
    # 2^24 + 1 has no float32: a float sum would lose the odd pixels.
    unions = torch.full((3,), 2**24 + 1)
    scores = scores_from_counts(torch.tensor([2**24 + 1, 1, 1]), unions)
    assert scores.oiou == 100 * (2**24 + 3) / (3 * (2**24 + 1))


def test_update__rejects_other_masks() -> None:
    with pytest.raises(InputError, match="resize and threshold"):
        SegmentationMetrics().update(masks(1).float(), masks(1))
    with pytest.raises(InputError, match="resize and threshold"):
        SegmentationMetrics().update(masks(1), masks(1, num_pixels=64))


def test_scores__rejects_nothing() -> None:
    with pytest.raises(InputError, match="at least one expression"):
        SegmentationMetrics().counts().scores()
