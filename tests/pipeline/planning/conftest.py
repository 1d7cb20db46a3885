import pytest
import torch

from semires.pipeline.planning import fitting, plan
from semires.pipeline.planning.step import ForwardFigures, Share, StepFigures
from semires.pipeline.planning.studies import estimate
from semires.pipeline.planning.studies.sample import SampleFigures
from semires.stages.train.config import TrainConfig

GIB = 2**30


@pytest.fixture
def simple_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of fake tensors: models of 1 GiB, a sample of 1 GiB (half of it where it is computed again), 2 TFLOP a
    sample in the student and half a TFLOP in the teacher."""

    def step(config: TrainConfig, share: Share, device: torch.device, *, is_bf16: bool) -> StepFigures:
        is_mutual, is_again = config.method != "supervised", config.gradient_checkpointing
        peak = {
            "student": GIB,
            "teacher": GIB if is_mutual else 0,
            "optimizer": 2 * GIB,
            "gradients": GIB if share.num_parts > 1 else 0,
            "activations": share.at_once * GIB // (2 if is_again else 1),
        }
        samples = share.labeled + share.unlabeled
        return StepFigures(peak=peak, flops_student=2 * 10**12 * samples, flops_teacher=10**12 // 2 * share.unlabeled)

    monkeypatch.setattr(plan, "plan_step", step)
    monkeypatch.setattr(fitting, "plan_step", step)
    monkeypatch.setattr(plan, "plan_forward", lambda *_, **__: ForwardFigures(activations=2 * GIB, flops=10**12 // 2))


@pytest.fixture
def simple_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same model in place of the one sample that many runs are estimated by."""
    figures = SampleFigures(flops_student=2 * 10**12, flops_forward=10**12 // 2, weights=GIB, moments=2 * GIB)
    monkeypatch.setattr(estimate, "plan_sample", lambda config: figures)
