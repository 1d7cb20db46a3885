"""Both losses against torch's own cross-entropy."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from semires.stages.train.losses import supervised_loss, unsupervised_loss

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
