import pytest
import torch

from semires.pipeline.planning.devices import GIB, NAMED, plan_device
from semires.stages.data.errors import InputError


def test_plan_device__named() -> None:
    assert plan_device("RTX3090") is NAMED["rtx3090"]
    assert plan_device("a100-40").memory == 40 * GIB


@pytest.mark.parametrize(
    ("name", "is_bf16", "expected"),
    [
        ("h100", True, ("bf16", 989)),
        ("h100", False, ("tf32", 494)),
        ("t4", False, ("fp32", 8.1)),
        ("t4", True, ("fp32", 8.1)),  # emulated: no faster than this
    ],
)
def test_plan_device__peak(name: str, is_bf16: bool, expected: tuple[str, float]) -> None:
    assert plan_device(name).peak(is_bf16=is_bf16) == expected


def test_plan_device__table_is_sane() -> None:
    for device in NAMED.values():
        assert list(device.peaks) == sorted(device.peaks, key=["bf16", "tf32", "fp32"].index)
        assert device.has_bf16 == ("tf32" in device.peaks)  # both came with Ampere
        peaks = list(device.peaks.values())
        assert peaks == sorted(peaks, reverse=True)


def test_plan_device__unknown() -> None:
    with pytest.raises(
        InputError, match=r"--plan-device: expected cpu, cuda where it is here, or h200, h100, .*found 'abacus'"
    ):
        plan_device("abacus")


def test_plan_device__measured_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    device = plan_device(None)
    assert device.title == plan_device("cpu").title
    with pytest.raises(InputError, match="found 'cuda:1'"):
        plan_device("cuda:1")
    assert device.type == "cpu"
    assert device.memory > 2**28
    assert 1e-4 < device.peaks["fp32"] < 100
    assert "measured" in device.source
