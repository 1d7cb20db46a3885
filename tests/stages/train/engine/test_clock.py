"""Seconds of a run, of waiting, and until the next state."""

import time

import pytest

from semires.stages.train.engine import clock as clock_module
from semires.stages.train.engine.clock import Clock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, in seconds, to be set by hand."""
    hand = [100.0]
    monkeypatch.setattr(clock_module, "time", type("", (), {"perf_counter": staticmethod(lambda: hand[0])}))
    return hand


def test_clock__goes_on_from_earlier_processes(now: list[float]) -> None:
    clock = Clock(save_minutes=10.0)
    now[0] = 150.0  # what came before training does not count
    clock.start(1000.0)
    now[0] = 160.0
    assert clock.seconds == 1000.0
    assert clock.read() == clock.seconds == 1010.0


def test_clock__a_state_is_due_after_its_minutes(now: list[float]) -> None:
    clock = Clock(save_minutes=0.5)
    clock.start(0.0)
    for at, is_due in ((129.0, False), (130.0, True)):
        now[0] = at
        assert clock.is_save_due == is_due
    clock.saved()
    assert not clock.is_save_due
    now[0] = 160.0
    assert clock.is_save_due


def test_clock__steps_a_second_and_the_share_of_waiting(now: list[float]) -> None:
    clock = Clock(save_minutes=10.0)
    clock.start(0.0)
    for _ in range(4):
        with clock.waiting():
            now[0] += 0.5
        now[0] += 1.5
        clock.count_step()
    assert clock.speed() == (pytest.approx(0.5), pytest.approx(0.25))
    clock.restart_counts()
    now[0] += 1.0
    assert clock.speed() == (0.0, 0.0)


def test_clock__by_the_real_time() -> None:
    clock = Clock(save_minutes=0.0)
    clock.start(0.0)
    time.sleep(0.01)
    assert clock.read() >= 0.01
    assert clock.is_save_due
