import dataclasses

import pytest
import torch
from torch import Tensor

from semires.pipeline.planning.step import Share, make_student, plan_forward, plan_step
from semires.pipeline.planning.studies.sample import plan_sample
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.lavt import Lavt

CPU = torch.device("cpu")
NANO = train_recipe("refshapes")


@pytest.mark.parametrize(("method", "recomputes"), [("supervised", False), ("semires-cc", True)])
def test_plan_sample__what_a_whole_step_has(method: str, recomputes: bool) -> None:
    config = dataclasses.replace(NANO, method=method, gradient_checkpointing=recomputes)
    sample = plan_sample(config)
    share = Share(labeled=2, unlabeled=0 if method == "supervised" else 4, at_once=6)
    step = plan_step(config, share, CPU, is_bf16=True)
    assert step.flops_student == sample.flops_student * share.num_samples
    num_read = 0 if method == "supervised" else 4 * config.group.expressions
    assert step.flops_teacher == sample.flops_forward * num_read
    assert (step.peak["student"], step.peak["optimizer"]) == (sample.weights, sample.moments)
    assert plan_forward(config, 3, CPU, is_bf16=True).flops == sample.flops_forward
    assert torch.is_autocast_enabled("cpu") is False  # it is torch's own again


def test_plan_sample__recomputing_is_more_work() -> None:
    plain = plan_sample(NANO)
    assert plan_sample(dataclasses.replace(NANO, gradient_checkpointing=True)).flops_student > plain.flops_student
    smaller = sum(parameter.nbytes for parameter in make_student(NANO).parameters())
    assert smaller < plain.weights < 1.1 * smaller  # buffers: batch norm's


def test_plan_sample__a_model_that_looks_at_values(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(self: Lavt, images: Tensor, *rest: Tensor) -> Tensor:
        return images * float(images.mean())

    monkeypatch.setattr(Lavt, "forward", look)
    with pytest.raises(InputError, match=r"--plan: expected a model .* found that nano needs one \(RuntimeError: "):
        plan_sample(TrainConfig(model="nano"))
