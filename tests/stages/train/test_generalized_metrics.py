import numpy as np
import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.generalized_metrics import FEWEST_PIXELS, GeneralizedScores, generalized_scores


def by_masks(pred: np.ndarray, truth: np.ndarray, no_target: np.ndarray) -> GeneralizedScores:
    """The definitions written out, an expression after another; pred, truth: bool [N, H, W]."""
    iou_sum, inter_sum, union_sum = 0.0, 0, 0
    right_none = wrong_none = right_target = wrong_target = 0
    for mask, target, is_none in zip(pred, truth, no_target, strict=True):
        cleared = mask & (mask.sum() >= 50)
        inter, union = int((cleared & target).sum()), int((cleared | target).sum())
        if is_none:
            right_none += not cleared.any()
            wrong_none += bool(cleared.any())
            iou_sum += not cleared.any()
        else:
            right_target += bool(cleared.any())
            wrong_target += not cleared.any()
            iou_sum += inter / union if union else 0
        inter_sum, union_sum = inter_sum + inter, union_sum + union
    return GeneralizedScores(
        giou=100 * iou_sum / len(pred),
        ciou=100 * inter_sum / max(union_sum, 1),
        n_acc=100 * right_none / (right_none + wrong_none) if right_none + wrong_none else None,
        t_acc=100 * right_target / (right_target + wrong_target) if right_target + wrong_target else None,
        num_no_target=right_none + wrong_none,
        num_samples=len(pred),
    )


def scores_of(pred: np.ndarray, truth: np.ndarray, no_target: np.ndarray) -> GeneralizedScores:
    counts = [(pred & truth).sum((1, 2)), (pred | truth).sum((1, 2)), truth.sum((1, 2))]
    return generalized_scores(*map(torch.from_numpy, counts), torch.from_numpy(no_target))


@pytest.mark.parametrize("seed", range(4))
def test_generalized_scores__as_the_definitions_written_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    share = rng.choice([0.0, 0.01, 0.3, 0.6], (64, 1, 1))
    pred = rng.random((64, 20, 20)) < share
    no_target = rng.random(64) < 0.3
    truth = (rng.random((64, 20, 20)) < rng.choice([0.0, 0.2, 0.5], (64, 1, 1))) & ~no_target[:, None, None]
    found, expected = scores_of(pred, truth, no_target), by_masks(pred, truth, no_target)
    for name in ("giou", "ciou", "n_acc", "t_acc"):
        assert getattr(found, name) == pytest.approx(getattr(expected, name), rel=1e-12)
    assert (found.num_no_target, found.num_samples) == (expected.num_no_target, 64)


def one(intersection: int, union: int, area: int, *, none: bool = False) -> GeneralizedScores:
    counts = (torch.tensor([value]) for value in (intersection, union, area))
    return generalized_scores(*counts, torch.tensor([none]))


def test_generalized_scores__fifty_pixels_are_a_prediction_and_fewer_are_none() -> None:
    assert FEWEST_PIXELS == 50
    assert one(0, 49, 0, none=True) == GeneralizedScores(
        giou=100.0, ciou=0.0, n_acc=100.0, t_acc=None, num_no_target=1, num_samples=1
    )
    assert (one(0, 50, 0, none=True).giou, one(0, 50, 0, none=True).n_acc) == (0.0, 0.0)
    # 49 pixels of 100 found and no others: cleared; a 50th makes it a prediction.
    assert (one(49, 100, 100).giou, one(49, 100, 100).t_acc) == (0.0, 0.0)
    assert (one(50, 100, 100).giou, one(50, 100, 100).t_acc, one(50, 100, 100).n_acc) == (50.0, 100.0, None)


def test_generalized_scores__a_target_that_is_too_small_to_see_is_one_all_the_same() -> None:
    found = one(0, 0, 0)
    assert (found.giou, found.t_acc, found.num_no_target) == (0.0, 0.0, 0)


def test_generalized_scores__refused() -> None:
    empty = torch.zeros(0, dtype=torch.int64)
    with pytest.raises(InputError, match="at least one expression"):
        generalized_scores(empty, empty, empty, torch.zeros(0, dtype=torch.bool))
    with pytest.raises(InputError, match="no pixels of a target where there is none"):
        one(0, 9, 4, none=True)
