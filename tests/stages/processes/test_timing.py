import time

import pytest
import torch

from semires.stages.processes.timing import PhaseTimer

PHASES = ("encode", "decode", "pack")


def test_phase__adds_up() -> None:
    timer = PhaseTimer(PHASES, torch.device("cpu"), enabled=True)
    for _ in range(2):
        with timer.phase("decode"):
            time.sleep(0.005)
    assert timer.milliseconds["decode"] >= 10
    assert [name for name in PHASES if timer.milliseconds[name]] == ["decode"]


def test_phase__counts_what_fails() -> None:
    timer = PhaseTimer(PHASES, torch.device("cpu"), enabled=True)

    def fail() -> None:
        with timer.phase("encode"):
            time.sleep(0.002)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert timer.milliseconds["encode"] >= 2


def test_phase__off() -> None:
    timer = PhaseTimer(PHASES, torch.device("cpu"), enabled=False)
    with timer.phase("pack"):
        time.sleep(0.001)
    assert timer.milliseconds == dict.fromkeys(PHASES, 0.0)
