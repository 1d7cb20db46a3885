"""Poly decay, alone and on an optimizer."""

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.engine.schedule import evenly_spaced, poly_factor, poly_schedule


def test_poly_factor__ends_and_middle() -> None:
    assert poly_factor(0, 10) == 1.0
    assert poly_factor(5, 10) == pytest.approx(0.5358867)
    assert poly_factor(10, 10) == 0.0
    assert poly_factor(11, 10) == 0.0
    assert poly_factor(5, 10, power=1.0) == 0.5


def test_poly_factor__rejects_an_empty_run() -> None:
    with pytest.raises(InputError, match="at least one iteration"):
        poly_factor(0, 0)


def test_poly_schedule__scales_every_group_each_iteration() -> None:
    first, second = torch.zeros(1, requires_grad=True), torch.zeros(1, requires_grad=True)
    optimizer = torch.optim.AdamW([{"params": [first], "lr": 1.0}, {"params": [second], "lr": 0.1}])
    schedule = poly_schedule(optimizer, 4)
    rates = []
    for _ in range(4):
        rates.append([group["lr"] for group in optimizer.param_groups])
        (first + second).backward()
        optimizer.step()
        schedule.step()
    for step, (rate_first, rate_second) in enumerate(rates):
        assert rate_first == pytest.approx(poly_factor(step, 4))
        assert rate_second == pytest.approx(0.1 * poly_factor(step, 4))
    assert optimizer.param_groups[0]["lr"] == 0.0


def test_poly_schedule__resumes_from_its_state() -> None:
    def make() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
        return optimizer, poly_schedule(optimizer, 10)

    optimizer, schedule = make()
    for _ in range(3):
        optimizer.step()
        schedule.step()
    resumed_optimizer, resumed = make()
    resumed.load_state_dict(schedule.state_dict())
    resumed_optimizer.load_state_dict(optimizer.state_dict())
    for pair in ((optimizer, schedule), (resumed_optimizer, resumed)):
        pair[0].step()
        pair[1].step()
    assert (
        resumed_optimizer.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == pytest.approx(poly_factor(4, 10))
    )


@pytest.mark.parametrize(
    ("num_steps", "count", "expected"),
    [(12, 3, {4, 8, 12}), (10, 3, {3, 6, 10}), (2, 5, {1, 2}), (1, 40, {1}), (7, 1, {7})],
)
def test_evenly_spaced__ends_with_the_last_step(num_steps: int, count: int, expected: set[int]) -> None:
    assert evenly_spaced(num_steps, count) == expected
