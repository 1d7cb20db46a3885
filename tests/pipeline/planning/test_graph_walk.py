from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semires.pipeline.planning.fake_device import fake_device, to_fake
from semires.pipeline.planning.graph_walk import walk_backward
from semires.pipeline.planning.meter import StepMeter


class Doubled(torch.autograd.Function):
    """A function with a backward of its own, which saves what it is given."""

    @staticmethod
    def forward(ctx: Any, given: Tensor) -> Tensor:
        ctx.save_for_backward(given)
        return given * 2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (given,) = ctx.saved_tensors
        return gradient * 2 + 0 * given


class Network(nn.Module):
    """A bit of everything that the engine has to care for: a layer used twice, broadcasts, a part computed again, a
    frozen layer, an output that nothing reads, a norm in training."""

    def __init__(self) -> None:
        super().__init__()
        self.twice, self.narrow, self.frozen = nn.Linear(32, 32), nn.Linear(32, 1), nn.Linear(32, 32)
        self.norm, self.shift = nn.BatchNorm1d(32), nn.Parameter(torch.zeros(1, 32))
        self.frozen.requires_grad_(False)

    def forward(self, given: Tensor) -> Tensor:
        hidden = checkpoint(self._again, self.twice(given).tanh(), use_reentrant=False)
        highest, _unread = hidden.max(dim=1, keepdim=True)
        expanded = Doubled.apply(self.narrow(hidden)).expand(-1, 32) + self.shift * highest
        return (self.norm(self.frozen(expanded)) * hidden).square().mean()

    def _again(self, hidden: Tensor) -> Tensor:
        return self.twice(nn.functional.gelu(hidden)) + hidden


def by_engine(make_loss: Callable[[], Tensor]) -> None:
    make_loss().backward()


def measured(backward: Callable[[Callable[[], Tensor]], None], *, times: int = 1) -> tuple[list[Tensor], int, int]:
    """Gradients, bytes at the peak, FLOPs."""
    torch.manual_seed(0)
    network, given = Network(), torch.randn(64, 32)
    with StepMeter() as meter:
        for _ in range(times):
            backward(lambda: network(given))
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    return gradients, sum(meter.peak.values()), meter.flops


@pytest.mark.parametrize("times", [1, 2], ids=["new gradients", "added gradients"])
def test_walk_backward__does_what_the_engine_does(times: int) -> None:
    walked, peak, flops = measured(walk_backward, times=times)
    expected, expected_peak, expected_flops = measured(by_engine, times=times)
    torch.testing.assert_close(walked, expected)
    assert len(walked) == 7
    assert flops == expected_flops
    # Two numbers more: those of the pass that it runs in.
    assert abs(peak - expected_peak) <= 8


def test_walk_backward__tells_new_gradients() -> None:
    network, told = Network(), []
    for _ in range(2):
        walk_backward(lambda: network(torch.ones(4, 32)), told.append)
    assert len(told) == 7
    assert {id(gradient) for gradient in told} == {id(p.grad) for p in network.parameters() if p.grad is not None}


def test_walk_backward__of_a_gpu_that_is_not_here() -> None:
    network = Network()
    with fake_device(torch.device("cuda")):
        to_fake(network, torch.device("cuda"))
        given = torch.zeros(64, 32, device="cuda")
        with StepMeter() as meter:
            walk_backward(lambda: network(given))
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    assert [gradient.device.type for gradient in gradients] == ["cuda"] * 7
    assert meter.flops == measured(by_engine)[2]
