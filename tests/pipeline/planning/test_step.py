import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from semires.pipeline.planning.step import (
    Share,
    make_batch,
    make_teacher,
    num_tokens,
    parameter_groups,
    plan_forward,
    plan_step,
    teacher_reads,
)
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.precision import Precision
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import Batch
from semires.stages.train.step import TrainStep

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
CONFIG = train_recipe("refshapes")
MUTUAL = Share(labeled=2, unlabeled=6, at_once=8)


def batch_of(model: ResModel, num_samples: int, num_others: int = 0) -> Batch:
    """Samples like the plan's, without candidates; of each of the first `num_others` refs two expressions."""
    return Batch(
        ref_ids=torch.arange(num_samples),
        image_ids=torch.arange(num_samples),
        ann_ids=torch.arange(num_samples),
        other_input_ids=torch.ones(num_others, num_tokens(model), dtype=torch.int64),
        other_attention_mask=torch.ones(num_others, num_tokens(model), dtype=torch.int64),
        other_of=torch.arange(num_others),
        candidates=torch.zeros(0, (model.image_size**2 + 7) // 8, dtype=torch.uint8),
        offsets=torch.zeros(num_samples + 1, dtype=torch.int64),
        has_mask=torch.ones(num_samples, dtype=torch.bool),
        **vars(make_batch(model, num_samples, CPU)),
    )


def measured_peak(config: TrainConfig, share: Share, precision: Precision) -> int:
    """Bytes at the fullest moment of a step on the CPU, the trainer's second: what is there before, and what torch's
    allocator then gives out and takes back, workspaces of its kernels included."""
    config = dataclasses.replace(
        config,
        precision=precision,
        micro_batch=share.at_once if share.num_parts > 1 else None,
        batch_burn_in=share.labeled,
        batch_labeled=share.labeled,
        batch_unlabeled=share.unlabeled or 1,
    )
    model = config.build_model(pretrained=False)
    teacher = make_teacher(config, model)
    optimizer = torch.optim.AdamW(parameter_groups(config, model), fused=True)
    gradients = TrainStep(config, model, teacher, Ranks(), CPU)
    labeled = batch_of(model, share.labeled)
    num_others = teacher_reads(config, share)[0] - share.unlabeled
    unlabeled = batch_of(model, share.unlabeled, num_others) if share.unlabeled else None
    draws = gradients.draw(labeled, unlabeled, torch.Generator().manual_seed(0))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        gradients(labeled, unlabeled, draws)
        optimizer.step()
        if teacher is not None:
            teacher.update(model)

    step()
    optimizer.zero_grad(set_to_none=True)
    there: list[Tensor] = [*model.parameters(), *model.buffers()]
    there += [tensor for state in optimizer.state.values() for tensor in state.values()]
    there += [] if teacher is None else [*teacher.model.parameters(), *teacher.model.buffers()]
    of_unlabeled = [] if unlabeled is None else list(vars(unlabeled).values())
    there += [value for value in [*vars(labeled).values(), *of_unlabeled] if isinstance(value, Tensor)]
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
    ("config", "share", "precision"),
    [
        (CONFIG.burn_in(), Share(labeled=8, unlabeled=0, at_once=8), "fp32"),
        (CONFIG, MUTUAL, "bf16"),
        (dataclasses.replace(CONFIG, method="semires-cc"), MUTUAL, "fp32"),
        (dataclasses.replace(CONFIG, gradient_checkpointing=True), dataclasses.replace(MUTUAL, at_once=3), "fp32"),
        (train_recipe("refshapes", model="clipseg-nano"), MUTUAL, "bf16"),
    ],
    ids=["burn-in", "mutual, bf16", "mutual, two expressions", "mutual in parts, computed again", "mutual of CLIPSeg"],
)
def test_plan_step__expects_the_memory_that_is_measured(
    config: TrainConfig, share: Share, precision: Precision
) -> None:
    expected = plan_step(config, share, CPU, is_bf16=precision == "bf16").peak_bytes
    assert expected == pytest.approx(measured_peak(config, share, precision), rel=0.1)


class OneConvolution(ResModel):
    """A model of one's own, with what `scale` makes of its logits."""

    def __init__(self, scale: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.image_size = 16
        self.tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=4)
        self.convolution = torch.nn.Conv2d(3, 2, 1)
        self.scale = scale

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        return self.scale(self.convolution(images))


@pytest.fixture
def make_mine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., TrainConfig]:
    def make(scale: Callable[[Tensor], Tensor] = lambda logits: logits) -> TrainConfig:
        monkeypatch.setattr(TrainConfig, "build_model", lambda self, pretrained: OneConvolution(scale))
        return dataclasses.replace(CONFIG, model="mine:build")

    return make


@pytest.mark.parametrize("device", [CPU, CUDA], ids=str)
def test_plan_step__a_model_of_ones_own_by_hand(make_mine: Callable[..., TrainConfig], device: torch.device) -> None:
    config = make_mine()
    forward = 2 * 16 * 16 * 2 * 3  # 2 a multiply-add, pixels, channels out, channels in
    assert plan_forward(config, 3, device, is_bf16=False).flops == forward
    figures = plan_step(config, dataclasses.replace(MUTUAL, at_once=3), device, is_bf16=False)
    assert figures.flops_teacher == 6 * forward
    assert figures.flops_student == round(8 / 3 * 3 * 2 * forward)  # the images need no gradient
    assert figures.peak["student"] == figures.peak["gradients"] == figures.peak["optimizer"] // 2 == 4 * (2 * 3 + 2)


def test_plan_step__a_model_that_looks_at_values_is_refused(make_mine: Callable[..., TrainConfig]) -> None:
    config = make_mine(lambda logits: logits * (2 if bool((logits > 5).any()) else 1))
    with pytest.raises(InputError, match=r"--plan: expected a model .* found that mine:build needs one"):
        plan_step(config, MUTUAL, CPU, is_bf16=False)
    with pytest.raises(InputError, match=r"found that mine:build needs one"):
        plan_forward(config, 2, CUDA, is_bf16=False)
