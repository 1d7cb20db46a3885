"""Both losses against torch's own cross-entropy."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semires.stages.train.losses import (
    mean_of_kinds,
    mean_of_labels,
    supervised_loss,
    unsupervised_loss,
    unsupervised_sums,
    unsupervised_totals,
)

CLASS_WEIGHTS = torch.tensor([0.9, 1.1])


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(4, 2, 5, 5, generator=generator)
    target = torch.rand(4, 5, 5, generator=generator) < 0.3
    weights = torch.rand(4, 5, 5, generator=generator)
    return logits.requires_grad_(), target, weights


def weighted(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target.long(), weight=CLASS_WEIGHTS)


def pixel_weighted(logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    return (F.cross_entropy(logits, target.long(), reduction="none") * weights).mean()


def test_supervised_loss__is_torchs_weighted_mean(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = batch
    torch.testing.assert_close(supervised_loss(logits, target), weighted(logits, target))
    torch.testing.assert_close(
        supervised_loss(logits, target, class_weights=(0.2, 3.0)),
        F.cross_entropy(logits, target.long(), weight=torch.tensor([0.2, 3.0])),
    )


def test_supervised_loss__gradient_is_torchs(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = batch
    (expected,) = torch.autograd.grad(weighted(logits, target), logits)
    (found,) = torch.autograd.grad(supervised_loss(logits, target), logits)
    torch.testing.assert_close(found, expected)


def plain_mean(logits: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(logits, target.long(), weight=CLASS_WEIGHTS, reduction="none").mean()


def test_supervised_loss__plain_mean_of_weighted_pixels(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = batch
    torch.testing.assert_close(supervised_loss(logits, target, mean="plain"), plain_mean(logits, target))
    for value, ratio in ((False, 0.9), (True, 1.1)):
        alike = torch.full_like(target, value)
        loss = supervised_loss(logits, alike, mean="plain") / supervised_loss(logits, alike)
        assert loss.item() == pytest.approx(ratio)


def test_losses__in_the_precision_of_the_logits(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, weights = (tensor.detach() for tensor in batch)
    exact, matched = logits.double(), torch.tensor([True, False, False, True])
    loss = supervised_loss(exact, target)
    expected = F.cross_entropy(exact, target.long(), weight=torch.tensor([0.9, 1.1], dtype=torch.float64))
    torch.testing.assert_close(loss, expected, atol=1e-14, rtol=0)
    assert unsupervised_loss(exact, target, matched, weights.double()).dtype == torch.float64
    for half in (torch.float16, torch.bfloat16):
        assert unsupervised_loss(logits.to(half), target, matched, weights).dtype == torch.float32


def test_supervised_loss__large_logits_and_half_precision_stay_finite() -> None:
    logits = torch.tensor([[[[3e4]], [[-3e4]]]], dtype=torch.float16)
    loss = supervised_loss(logits, torch.ones(1, 1, 1, dtype=torch.bool))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(6e4, rel=1e-3)


def test_unsupervised_loss__both_kinds_average_their_means(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, weights = batch
    matched = torch.tensor([True, False, False, False])
    expected = 0.5 * (weighted(logits[:1], target[:1]) + pixel_weighted(logits[1:], target[1:], weights[1:]))
    loss = unsupervised_loss(logits, target, matched, weights)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_unsupervised_loss__plain_mean_of_matched_samples(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, weights = batch
    pwa = [pixel_weighted(logits[n:], target[n:], weights[n:]) for n in range(4)]
    for matched, expected in (
        ([True] * 2 + [False] * 2, 0.5 * (plain_mean(logits[:2], target[:2]) + pwa[2])),
        ([True] * 4, plain_mean(logits, target)),
        ([False] * 4, pwa[0]),
    ):
        loss = unsupervised_loss(logits, target, torch.tensor(matched), weights, mean="plain")
        torch.testing.assert_close(loss, expected)
    without_pwa = unsupervised_loss(logits, target, torch.tensor([True] * 2 + [False] * 2), None, mean="plain")
    torch.testing.assert_close(without_pwa, plain_mean(logits, target))


def test_unsupervised_loss__one_kind_alone(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, weights = batch
    everything = torch.ones(4, dtype=torch.bool)
    for matched, expected in (
        (everything, weighted(logits, target)),
        (~everything, pixel_weighted(logits, target, weights)),
    ):
        loss = unsupervised_loss(logits, target, matched, weights)
        torch.testing.assert_close(loss, expected)
        torch.testing.assert_close(torch.autograd.grad(loss, logits), torch.autograd.grad(expected, logits))


def test_unsupervised_loss__without_pwa_all_samples_are_class_weighted(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, _ = batch
    matched = torch.tensor([True, False, True, False])
    torch.testing.assert_close(unsupervised_loss(logits, target, matched, None), weighted(logits, target))


def test_unsupervised_loss__class_weights_reach_matched_samples_only(batch: tuple[Tensor, Tensor, Tensor]) -> None:
    logits, target, weights = batch
    matched = torch.tensor([True, False, False, True])
    mine = unsupervised_loss(logits, target, ~matched & matched, weights, class_weights=(5.0, 0.1))
    torch.testing.assert_close(mine, pixel_weighted(logits, target, weights))
    mine = unsupervised_loss(logits, target, matched | ~matched, weights, class_weights=(5.0, 0.1))
    torch.testing.assert_close(mine, F.cross_entropy(logits, target.long(), weight=torch.tensor([5.0, 0.1])))


@pytest.mark.parametrize("mean", ["weighted", "plain"])
def test_unsupervised_sums__of_the_pixels_that_are_kept(batch: tuple[Tensor, Tensor, Tensor], mean: Any) -> None:
    logits, target, weights = batch
    kept, matched = weights > 0.3, torch.zeros(4, dtype=torch.bool)
    sums = unsupervised_sums(logits, target, matched, None, kept=kept)
    totals = unsupervised_totals(target, matched, pwa=False, kept=kept, mean=mean)
    ignored = target.long().masked_fill(~kept, -100)
    expected = F.cross_entropy(logits, ignored, weight=CLASS_WEIGHTS, reduction="mean" if mean == "weighted" else "sum")
    if mean == "plain":
        expected = expected / kept.sum()
    found = mean_of_kinds(sums, totals)
    torch.testing.assert_close(found, expected)
    (ours,), (theirs,) = torch.autograd.grad(found, logits), torch.autograd.grad(expected, logits)
    torch.testing.assert_close(ours, theirs)
    logits = logits.detach().clone()
    logits.permute(0, 2, 3, 1)[~kept] = torch.inf  # what is left out must not leak
    assert unsupervised_sums(logits, target, matched, None, kept=kept)[0].isfinite()


@pytest.mark.parametrize("num_matched", [0, 1, 3, 4])
def test_mean_of_labels__every_pixel_by_its_own_weight(batch: tuple[Tensor, Tensor, Tensor], num_matched: int) -> None:
    logits, target, pwa = batch
    matched = torch.arange(4) < num_matched
    found = mean_of_labels(
        unsupervised_sums(logits, target, matched, pwa), unsupervised_totals(target, matched, pwa=True)
    )
    loss = F.cross_entropy(logits, target.long(), reduction="none")
    of_class = torch.where(target, 1.1, 0.9)
    weights = torch.where(matched[:, None, None], of_class, pwa)
    total = torch.where(matched[:, None, None], of_class, 1.0).sum()
    torch.testing.assert_close(found, (loss * weights).sum() / total)
    if num_matched in (0, 4):
        torch.testing.assert_close(found, unsupervised_loss(logits, target, matched, pwa))
