import dataclasses

import pytest

from semires.pipeline.planning.counts import RunCounts
from semires.pipeline.planning.devices import GIB, PlanDevice
from semires.pipeline.planning.plan import make_plan
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig

DEVICE = PlanDevice(title="one", type="cuda", memory=24 * GIB, peaks={"bf16": 25.0, "fp32": 2.5}, source="a test")
COUNTS = RunCounts(labeled=100, unlabeled=900, val_expressions=50, mutual_steps=225, source="a test")
# 40 samples a burn-in step make 2 x 40 TFLOP; at 40% of 25 TFLOP/s 8 seconds.
CONFIG = TrainConfig(
    model="nano",
    precision="bf16",
    batch_burn_in=40,
    batch_labeled=4,
    batch_unlabeled=12,
    burn_in_epochs=2,
    mutual_epochs=3,
    num_evaluations=10,
)


def test_make_plan__steps_and_time(simple_steps: None) -> None:
    plan = make_plan(CONFIG, COUNTS, DEVICE)
    burn_in, mutual = plan.phases
    assert (burn_in.name, burn_in.steps, burn_in.epochs, burn_in.evaluations) == ("burn-in", 5, 2, 5)
    assert burn_in.step_seconds == pytest.approx(8)
    assert burn_in.seconds == pytest.approx(5 * 8)
    assert burn_in.evaluation_seconds == pytest.approx(5 * 50 * 0.5 / 10)
    assert (mutual.name, mutual.steps, mutual.epochs, mutual.evaluations) == ("mutual", 225, 3, 10)
    assert mutual.step_seconds == pytest.approx((16 * 2 + 12 * 0.5) / 10)
    assert plan.seconds == pytest.approx(40 + 12.5 + 225 * 3.8 + 25)
    assert mutual.flops == pytest.approx((225 * 38 + 10 * 50 * 0.5) * 1e12)


def test_make_plan__of_several_gpus(simple_steps: None) -> None:
    one, three = (make_plan(CONFIG, COUNTS, DEVICE, num_gpus=num_gpus) for num_gpus in (1, 3))
    share = three.phases[1].share
    assert (share.labeled, share.unlabeled, share.at_once) == (2, 4, 6)  # the largest of 2 + 1 + 1
    assert three.phases[1].batch == one.phases[1].batch == 16
    assert three.phases[1].steps == one.phases[1].steps
    assert three.phases[1].step_seconds == pytest.approx((6 * 2 + 4 * 0.5) / 10)
    assert three.phases[1].figures.peak["activations"] == 6 * GIB
    with pytest.raises(InputError, match=r"--plan-gpus: .*found 5 for batches of 4 \+ 12"):
        make_plan(CONFIG, COUNTS, DEVICE, num_gpus=5)


def test_make_plan__without_counts_figures_of_a_step_only(simple_steps: None) -> None:
    plan = make_plan(CONFIG, None, DEVICE)
    assert plan.seconds is None
    assert [(phase.steps, phase.seconds, phase.flops) for phase in plan.phases] == [(None, None, None)] * 2
    assert plan.phases[0].step_seconds == pytest.approx(8)


@pytest.mark.parametrize(
    ("changes", "has_burn_in", "names"),
    [
        ({"method": "supervised"}, False, ["burn-in"]),
        ({"method": "baseline"}, False, ["burn-in", "mutual"]),
        ({}, True, ["mutual"]),
    ],
)
def test_make_plan__phases(simple_steps: None, changes: dict[str, str], has_burn_in: bool, names: list[str]) -> None:
    config = dataclasses.replace(CONFIG, **changes)
    assert [phase.name for phase in make_plan(config, COUNTS, DEVICE, has_burn_in=has_burn_in).phases] == names


def test_make_plan__memory_and_what_makes_it_fit(simple_steps: None) -> None:
    plan = make_plan(CONFIG, COUNTS, DEVICE)
    assert plan.highest_peak == 43 * GIB  # burn-in: student, moments, 40 samples
    assert plan.available == 22.5 * GIB
    assert plan.remedy is not None
    assert (plan.remedy.options, plan.remedy.fits) == ("--micro-batch 20 --grad-checkpointing", True)
    assert plan.remedy.peak_bytes == 14 * GIB  # gradients of the part before, 20 samples computed again
    fitting = make_plan(dataclasses.replace(CONFIG, micro_batch=14), COUNTS, DEVICE)
    assert (fitting.remedy, fitting.highest_peak) == (None, 19 * GIB)  # mutual: a teacher too, 14 samples
    assert fitting.evaluation_peak == 7 * GIB


def test_make_plan__disk(simple_steps: None) -> None:
    disk = make_plan(CONFIG, COUNTS, DEVICE).disk
    assert (disk.state, disk.weights) == (4 * GIB, GIB)
    # Three states, the best weights of both phases, and those being written.
    assert (disk.at_most, disk.afterwards) == ((3 * 4 + 2 + 1) * GIB, 2 * GIB)
    disk = make_plan(dataclasses.replace(CONFIG, method="supervised"), COUNTS, DEVICE).disk
    assert (disk.state, disk.at_most, disk.afterwards) == (3 * GIB, 11 * GIB, GIB)


@pytest.mark.parametrize(
    ("precision", "peaks", "expected"),
    [
        ("fp32", {"bf16": 9.0, "tf32": 4.0, "fp32": 1.0}, ("fp32", "tf32")),
        ("bf16", {"bf16": 9.0, "fp32": 1.0}, ("bf16", "bf16")),
        ("bf16", {"fp32": 1.0}, ("bf16", "fp32")),
        ("auto", {"bf16": 9.0, "fp32": 1.0}, ("bf16", "bf16")),
        ("auto", {"fp32": 1.0}, ("fp32", "fp32")),
    ],
)
def test_make_plan__precision(
    simple_steps: None, precision: str, peaks: dict[str, float], expected: tuple[str, str]
) -> None:
    config = dataclasses.replace(CONFIG, precision=precision)
    plan = make_plan(config, COUNTS, dataclasses.replace(DEVICE, peaks=peaks))
    assert (plan.precision, plan.computes_in) == expected


def test_make_plan__parameters_of_nano_and_base(simple_steps: None) -> None:
    nano = make_plan(train_recipe("refshapes"), None, DEVICE)
    assert {part.name: part.parameters for part in nano.parts} == {
        "visual": 1_425_379,
        "text": 135_040,
        "fusion": 456_448,
        "decoder": 461_698,
    }
    assert all(part.trained == part.parameters for part in nano.parts)
    (clipseg,) = make_plan(train_recipe("refshapes", model="clipseg-nano"), None, DEVICE).parts
    assert 1e6 < clipseg.parameters < 1.2e6
    assert clipseg.trained < 0.4e6  # its vision encoder stays as it is
    base = make_plan(TrainConfig(), None, DEVICE)
    text = next(part for part in base.parts if part.name == "text")
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 3072 + 3072 + 768 + 4 * 768
    assert text.trained == 10 * layer
    assert text.parameters == 12 * layer + (30522 + 512 + 2 + 2) * 768
