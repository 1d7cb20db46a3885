import dataclasses

import pytest
import torch

from semires.pipeline.planning import fitting
from semires.pipeline.planning.fitting import find_remedy
from semires.pipeline.planning.step import Share, StepFigures
from semires.pipeline.recipes import train_recipe
from semires.stages.train.config import TrainConfig

CONFIG = train_recipe("refcoco")
SHARE = Share(labeled=12, unlabeled=12, at_once=24)
CUDA = torch.device("cuda")


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """Steps that were asked for: a sample takes 100 bytes, computed again 30, the rest 1000, gradients 200."""
    asked: list[tuple[int, bool]] = []

    def compute(config: TrainConfig, share: Share, device: torch.device, *, is_bf16: bool) -> StepFigures:
        asked.append((share.at_once, config.gradient_checkpointing))
        return figures(share, config.gradient_checkpointing)

    monkeypatch.setattr(fitting, "plan_step", compute)
    return asked


def figures(share: Share, is_recomputing: bool = False) -> StepFigures:
    of_sample = 30 if is_recomputing else 100
    gradients = 200 if share.num_parts > 1 else 0
    peak = {"student": 300, "teacher": 300, "optimizer": 400, "gradients": gradients}
    return StepFigures(peak={**peak, "activations": of_sample * share.at_once}, flops_student=1, flops_teacher=1)


@pytest.mark.parametrize(
    ("available", "options", "peak", "num_computed"),
    [
        (1800, "--grad-checkpointing", 1720, 1),
        (1600, "--micro-batch 12 --grad-checkpointing", 1560, 2),
        (1500, "--micro-batch 8 --grad-checkpointing", 1440, 2),
        (1310, "--micro-batch 3 --grad-checkpointing", 1290, 2),
    ],
)
def test_find_remedy__the_first_that_fits(
    computed: list[tuple[int, bool]], available: int, options: str, peak: int, num_computed: int
) -> None:
    remedy = find_remedy(CONFIG, SHARE, figures(SHARE), CUDA, available, is_bf16=True)
    assert (remedy.options, remedy.peak_bytes, remedy.fits) == (options, peak, True)
    assert len(computed) == num_computed


def test_find_remedy__nothing_is_computed_twice_where_parts_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where gradient checkpointing spares little, a half of the samples at once comes first without it."""

    def compute(config: TrainConfig, share: Share, device: torch.device, *, is_bf16: bool) -> StepFigures:
        found = figures(share)
        spared = 50 if config.gradient_checkpointing else 0
        return dataclasses.replace(found, peak=found.peak | {"activations": found.peak["activations"] - spared})

    monkeypatch.setattr(fitting, "plan_step", compute)
    remedy = find_remedy(CONFIG, SHARE, figures(SHARE), CUDA, 2_500, is_bf16=True)
    assert (remedy.options, remedy.peak_bytes, remedy.fits) == ("--micro-batch 12", 2_400, True)


def test_find_remedy__what_was_expected_to_fit_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that takes more than its share of samples lets expect: the next candidate is tried."""

    def compute(config: TrainConfig, share: Share, device: torch.device, *, is_bf16: bool) -> StepFigures:
        found = figures(share, config.gradient_checkpointing)
        more = 100 if share.at_once == 12 else 0
        return dataclasses.replace(found, peak=found.peak | {"activations": found.peak["activations"] + more})

    monkeypatch.setattr(fitting, "plan_step", compute)
    remedy = find_remedy(CONFIG, SHARE, figures(SHARE), CUDA, 1600, is_bf16=True)
    assert (remedy.options, remedy.peak_bytes) == ("--micro-batch 8 --grad-checkpointing", 1440)


def test_find_remedy__nothing_fits(computed: list[tuple[int, bool]]) -> None:
    remedy = find_remedy(CONFIG, SHARE, figures(SHARE), CUDA, 1000, is_bf16=True)
    assert (remedy.options, remedy.peak_bytes) == ("--micro-batch 1 --grad-checkpointing", 1230)
    assert not remedy.fits


def test_find_remedy__options_that_are_given_already_are_not_named(computed: list[tuple[int, bool]]) -> None:
    config = dataclasses.replace(CONFIG, gradient_checkpointing=True)
    remedy = find_remedy(config, SHARE, figures(SHARE, True), CUDA, 1500, is_bf16=True)
    assert remedy.options == "--micro-batch 8"
    least = Share(labeled=12, unlabeled=12, at_once=1)
    remedy = find_remedy(config, least, figures(least, True), CUDA, 1000, is_bf16=True)
    assert (remedy.options, remedy.fits) == ("", False)


def test_find_remedy__a_model_that_computes_nothing_again(computed: list[tuple[int, bool]]) -> None:
    config = dataclasses.replace(CONFIG, model="clipseg")
    remedy = find_remedy(config, SHARE, figures(SHARE), CUDA, 1650, is_bf16=True)
    assert (remedy.options, remedy.peak_bytes) == ("--micro-batch 4", 1600)
