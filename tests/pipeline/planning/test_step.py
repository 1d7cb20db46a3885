import dataclasses

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from semires.pipeline.planning.step import (
    Share,
    make_batch,
    make_student,
    make_teacher,
    parameter_groups,
    plan_forward,
    plan_step,
    take_step,
)
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = train_recipe("refshapes")
MUTUAL = Share(labeled=2, unlabeled=6, at_once=8)


def measured_peak(config: TrainConfig, share: Share, *, is_bf16: bool) -> int:
    """Bytes at the fullest moment of a real step on the CPU, its second: what torch's allocator gives out and takes
    back, workspaces of its kernels included, over what is there before the step."""
    model = config.build_model(pretrained=False)
    teacher = make_teacher(config, model)
    optimizer = torch.optim.AdamW(parameter_groups(config, model), fused=True)
    batch = make_batch(model, share.labeled + share.unlabeled, CPU)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        take_step(config, model, teacher, batch, share, is_bf16=is_bf16, backward=lambda make: make().backward())
        optimizer.step()
        if teacher is not None:
            teacher.update(model)

    step()
    optimizer.zero_grad(set_to_none=True)
    there: list[Tensor] = [*model.parameters(), *model.buffers(), *vars(batch).values()]
    there += [tensor for state in optimizer.state.values() for tensor in state.values()]
    if teacher is not None:
        there += [*teacher.model.parameters(), *teacher.model.buffers()]
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    assert profiler.profiler is not None
    now = highest = sum(tensor.nbytes for tensor in there)
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        highest = max(highest, now)
    return highest


@pytest.mark.parametrize(
    ("config", "share", "is_bf16"),
    [
        (CONFIG.burn_in(), Share(labeled=8, unlabeled=0, at_once=8), False),
        (CONFIG, MUTUAL, True),
        (dataclasses.replace(CONFIG, gradient_checkpointing=True), dataclasses.replace(MUTUAL, at_once=3), False),
    ],
    ids=["burn-in", "mutual, bf16", "mutual in parts, computed again"],
)
def test_plan_step__expects_the_memory_that_is_measured(config: TrainConfig, share: Share, is_bf16: bool) -> None:
    expected = plan_step(config, share, CPU, is_bf16=is_bf16).peak_bytes
    assert expected == pytest.approx(measured_peak(config, share, is_bf16=is_bf16), rel=0.1)


def test_plan_step__of_a_gpu_that_is_not_here() -> None:
    config = dataclasses.replace(CONFIG, gradient_checkpointing=True)
    figures = plan_step(config, dataclasses.replace(MUTUAL, at_once=3), CUDA, is_bf16=True)
    forward = plan_forward(config, 3, CUDA, is_bf16=True)
    parameters = 4 * sum(parameter.numel() for parameter in make_student(config).parameters())
    assert figures.peak["student"] == figures.peak["teacher"] > parameters  # buffers too
    assert figures.peak["optimizer"] == 2 * parameters
    assert figures.peak["gradients"] == parameters  # of the parts before
    assert 0 < forward.activations * 3 / 16 < figures.peak["activations"]
    assert figures.flops_teacher == 6 * forward.flops
    # Forward, backward and a part of the forward again, of every sample in every part.
    assert 3.05 < figures.flops_student / (8 * forward.flops) < 4


class Peeking(ResModel):
    """A model that looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.image_size = 16
        self.tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=4)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return images[:, :2] * self.scale * (2 if bool((images > 5).any()) else 1)


def test_plan_step__a_model_that_looks_at_values_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TrainConfig, "build_model", lambda self, pretrained: Peeking())
    config = dataclasses.replace(CONFIG, model="mine:build")
    with pytest.raises(InputError, match=r"--plan: expected a model .* found that mine:build needs one"):
        plan_step(config, MUTUAL, CPU, is_bf16=False)
