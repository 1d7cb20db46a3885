import time

import pytest
import torch

from semires.stages.cache_sam.generator.timing import PHASES, PhaseTimer


def test_phase__adds_up() -> None:
    timer = PhaseTimer(torch.device("cpu"), enabled=True)
    for _ in range(2):
        with timer.phase("decode"):
            time.sleep(0.005)
    assert timer.milliseconds["decode"] >= 10
    assert [name for name in PHASES if timer.milliseconds[name]] == ["decode"]


def test_phase__counts_what_fails() -> None:
    timer = PhaseTimer(torch.device("cpu"), enabled=True)

    def fail() -> None:
        with timer.phase("encode"):
            time.sleep(0.002)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert timer.milliseconds["encode"] >= 2


def test_phase__off() -> None:
    timer = PhaseTimer(torch.device("cpu"), enabled=False)
    with timer.phase("pack"):
        time.sleep(0.001)
    assert timer.milliseconds == dict.fromkeys(PHASES, 0.0)
