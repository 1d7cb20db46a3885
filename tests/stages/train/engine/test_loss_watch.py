"""Losses that are not finite are found a step later, with what they were of."""

import pytest
import torch

from semires.stages.train.engine.loss_watch import LossWatch


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_take__what_is_not_finite(value: float) -> None:
    watch = LossWatch()
    assert watch.take() is None
    watch.put(7, torch.tensor(value), [torch.tensor([3, 5]), torch.tensor([9])])
    seen = watch.take()
    assert seen is not None
    assert (seen.step, seen.refs()) == (7, [3, 5, 9])
    assert watch.take() is None  # once


def test_take__finite() -> None:
    watch = LossWatch()
    watch.put(7, torch.tensor(0.5), [torch.tensor([3])])
    assert watch.take() is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_take__from_cuda() -> None:
    watch = LossWatch()
    for value, is_found in ((0.5, False), (float("nan"), True)):
        watch.put(1, torch.tensor(value, device="cuda"), [])
        assert (watch.take() is not None) == is_found
