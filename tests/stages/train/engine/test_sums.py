import pytest
import torch
from torch import Tensor

from semires.stages.processes.ranks import Ranks
from semires.stages.train.engine.sums import StepSums


def sums_of(*steps: dict[str, float]) -> StepSums:
    sums = StepSums(torch.device("cpu"))
    for step in steps:
        sums.add({name: torch.tensor(value) for name, value in step.items()})
    return sums


STEP = {
    "loss_sup": 0.5,
    "loss_unsup": 0.25,
    "num_labels": 4.0,
    "num_measured": 2.0,
    "matched": 3.0,
    "label_iou_before": 0.5,
    "label_iou_after": 1.0,
    "improved": 1.0,
    "worsened": 0.0,
}


def test_means__what_was_measured_is_a_mean_over_what_was_measured() -> None:
    sums = sums_of(STEP, STEP | {"num_measured": 0.0, "label_iou_before": 0.0, "label_iou_after": 0.0, "improved": 0.0})
    assert sums.means(Ranks()) == {
        "loss_sup": 0.5,
        "loss_unsup": 0.25,
        "matched": 0.75,
        "label_iou_before": 0.25,
        "label_iou_after": 0.5,
        "improved": 0.5,
        "worsened": 0.0,
    }
    assert sums.note() == "loss 0.500 + 0.250 · matched 75% · label IoU 0.25 → 0.50"


def test_means__what_nothing_measured_is_left_out() -> None:
    nothing = {"num_measured": 0.0, "label_iou_before": 0.0, "label_iou_after": 0.0, "improved": 0.0}
    sums = sums_of(STEP | nothing)
    assert sums.means(Ranks()) == {"loss_sup": 0.5, "loss_unsup": 0.25, "matched": 0.75}
    assert sums.note() == "loss 0.500 + 0.250 · matched 75%"
    assert sums_of({"loss_sup": 0.5}).note() == "loss 0.500"


def test_note__nothing_matched() -> None:
    assert sums_of(STEP | {"matched": 0.0}).note() == "loss 0.500 + 0.250 · label IoU 0.25"


def test_load__of_before_there_were_labels_that_nothing_measures() -> None:
    old = sums_of({name: value for name, value in STEP.items() if name != "num_measured"} | {"label_iou_before": 2.0})
    sums = StepSums(torch.device("cpu"))
    sums.load([old.state_dict()])
    assert sums.means(Ranks())["label_iou_before"] == 0.5
    sums.add({name: torch.tensor(value) for name, value in STEP.items()})
    means = sums.means(Ranks())
    assert means["label_iou_before"] == pytest.approx(2.5 / 6)
    assert means["matched"] == 0.75


def test_means__ranks_add_up_the_same_things() -> None:
    """One that goes on from a state has its sums in another order than one that begins."""
    sums, seen = sums_of(dict(reversed(STEP.items()))), []

    class Spy(Ranks):
        def sum(self, value: Tensor) -> Tensor:
            seen.append(value.tolist())
            return value

    assert sums.means(Spy()) == sums_of(STEP).means(Spy())
    assert seen[0] == seen[1]
