import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from semires.pipeline.planning.meter import StepMeter
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO


def test_step_meter__flops_by_hand() -> None:
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 5))
    images = torch.ones(2, 3, 4, 4)
    with StepMeter() as meter:
        network(images).sum().backward()
    convolution = 2 * 2 * (4 * 4 * 8) * (3 * 3 * 3)  # 2 a multiply-add, 2 images, outputs, inputs of each
    linear = 2 * 2 * 128 * 5
    # Backward: the weights' gradients as much again, the inputs' of the linear layer alone.
    assert meter.flops == 2 * convolution + 3 * linear


def test_step_meter__flops_are_torchs() -> None:
    torch.manual_seed(0)
    lavt = Lavt(LAVT_NANO)
    batch = torch.randn(2, 3, 96, 96), torch.ones(2, 20, dtype=torch.int64), torch.ones(2, 20, dtype=torch.int64)
    counts = []
    for mode in (StepMeter(), FlopCounterMode(display=False)):
        with mode:
            lavt(*batch).sum().backward()
        counts.append(mode.flops if isinstance(mode, StepMeter) else mode.get_total_flops())
    assert counts[0] == counts[1] > 0


def test_step_meter__counts_storages_once_and_until_they_are_freed() -> None:
    with StepMeter() as meter:
        first = torch.zeros(1000)
        views = [first[:10], first.view(10, 100).T, first.detach()]
        second = first + 1
        assert meter.live["activations"] == 8000
        del second
        assert (meter.live["activations"], meter.peak["activations"]) == (4000, 8000)
        del first
        assert meter.live["activations"] == 4000  # the views hold it
        views.clear()
        assert meter.live["activations"] == 0
    assert meter.peak["activations"] == 8000


def test_step_meter__tells_what_was_there_at_the_peak() -> None:
    parameter, meter = nn.Parameter(torch.ones(500)), StepMeter()
    meter.hold("student", [parameter])
    with meter:
        loss = (parameter * 2).sum()
        loss.backward()
        assert parameter.grad is not None
        meter.hold("gradients", [parameter.grad])
        del loss
        later = torch.zeros(300)
    assert meter.live == {"student": 2000, "gradients": 2000, "optimizer": 0, "teacher": 0, "activations": 1200}
    assert meter.peak == meter.live
    assert len(later) == 300
