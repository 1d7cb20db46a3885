"""One training step on fake tensors: what it holds at its peak and what it multiplies.

Axes: B samples, S side of the images, T tokens.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    UnsupportedFakeTensorException,
)

from semires.pipeline.planning.fake_device import fake_device, to_fake
from semires.pipeline.planning.graph_walk import OnGradient, walk_backward
from semires.pipeline.planning.meter import Kind, StepMeter
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.precision import Precision, autocast
from semires.stages.train.labels.pwa import pwa_weights
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.losses import supervised_loss, unsupervised_loss
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_SIZES
from semires.stages.train.models.normalization import normalize
from semires.stages.train.views import plain_view

EVALUATED_AT_ONCE = 16
"""Images of a batch in evaluation."""

MEAN_EXPRESSIONS = 3
"""Of a ref, where a teacher reads all: RefCOCO's have 2.85."""


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a process has of a step: its samples, and how many of them it puts through a model at once."""

    labeled: int
    unlabeled: int
    at_once: int

    @property
    def num_parts(self) -> int:
        """Forward and backward passes of the student."""
        return math.ceil(self.num_samples / self.at_once)

    @property
    def num_samples(self) -> int:
        """Of both kinds."""
        return self.labeled + self.unlabeled

    @property
    def largest_part(self) -> int:
        """Samples of the largest part; they are as even as can be."""
        return math.ceil(self.num_samples / self.num_parts)


@dataclass(frozen=True, kw_only=True)
class StepFigures:
    """`peak`: bytes of a process at the fullest moment of a step, by what they are taken for. `flops_student`,
    `flops_teacher`: of its whole share, in every part; of the student forward, backward and what is recomputed."""

    peak: dict[Kind, int]
    flops_student: int
    flops_teacher: int

    @property
    def peak_bytes(self) -> int:
        """All kinds together."""
        return sum(self.peak.values())


@dataclass(frozen=True, kw_only=True)
class ForwardFigures:
    """A forward pass of the evaluation: bytes of `EVALUATED_AT_ONCE` images at its peak, without any model's; FLOPs of
    one image."""

    activations: int
    flops: int


@dataclass(frozen=True, kw_only=True)
class StepTensors:
    """The samples of a step: images uint8 [B, 3, S, S], masks bool [B, S, S], tokens int64 [B, T] twice; the labeled
    samples come first."""

    images: Tensor
    masks: Tensor
    input_ids: Tensor
    attention_mask: Tensor


def make_student(config: TrainConfig) -> ResModel:
    """The run's model without weights: LAVT on the meta device, where it needs no file; any other as it is built."""
    if config.model not in LAVT_SIZES:
        return config.build_model(pretrained=False)
    sizes = LAVT_SIZES[config.model].resized(window=config.window, image_size=config.image_size)
    with torch.device("meta"):
        lavt = Lavt(sizes)
    lavt.gradient_checkpointing = config.gradient_checkpointing
    return lavt


def num_tokens(model: ResModel) -> int:
    """T of the model's expressions."""
    return model.config.max_tokens if isinstance(model, Lavt) else model.tokenizer.max_tokens


def plan_step(config: TrainConfig, share: Share, device: torch.device, *, is_bf16: bool) -> StepFigures:
    """The figures of a step of `config`'s method on a device that need not be here.

    With several parts the fullest moment is in the second or a later one, when there are gradients already; one such
    part is computed, and its FLOPs are multiplied. InputError for a model that cannot be computed on fake tensors.
    """
    student = make_student(config)
    teacher = make_teacher(config, student)
    meter = StepMeter()
    with fake_device(device):
        to_fake(student, device)
        if teacher is not None:
            to_fake(teacher.model, device)
        groups = parameter_groups(config, student)
        trained: list[Tensor] = [parameter for group in groups for parameter in group["params"]]
        moments = torch.empty(2 * sum(tensor.nbytes for tensor in trained), dtype=torch.uint8, device=device)
        meter.hold("student", [*student.parameters(), *student.buffers()])
        meter.hold("optimizer", [moments])
        if teacher is not None:
            meter.hold("teacher", [*teacher.model.parameters(), *teacher.model.buffers()])
        if share.num_parts > 1:
            for parameter in trained:
                parameter.grad = torch.zeros_like(parameter)
            meter.hold("gradients", [parameter.grad for parameter in trained if parameter.grad is not None])

        flops_of_teacher = 0

        def teacher_is_done() -> None:
            nonlocal flops_of_teacher
            flops_of_teacher = meter.flops

        batch = make_batch(student, share.num_samples, device)
        meter.hold("activations", vars(batch).values())
        with _without_values(config), meter:
            compute_first_part(
                config,
                student,
                teacher,
                batch,
                share,
                is_bf16=is_bf16,
                on_gradient=lambda gradient: meter.hold("gradients", [gradient]),
                on_labels=teacher_is_done,
            )
    flops_of_student = meter.flops - flops_of_teacher
    num_read, teacher_part = teacher_reads(config, share)
    return StepFigures(
        peak=meter.peak,
        flops_student=round(flops_of_student * share.num_samples / share.largest_part),
        flops_teacher=round(flops_of_teacher * num_read / teacher_part) if teacher_part else 0,
    )


def teacher_reads(config: TrainConfig, share: Share) -> tuple[int, int]:
    """The expressions that a process's teacher reads in a step, and at once; of a ref's as many as are asked for."""
    of_ref = (config.group.expressions or MEAN_EXPRESSIONS) if config.is_grouped else 1
    num_read = share.unlabeled * of_ref
    return num_read, num_read if share.num_parts == 1 else min(share.at_once, num_read)


def plan_forward(config: TrainConfig, num_images: int, device: torch.device, *, is_bf16: bool) -> ForwardFigures:
    """The figures of the evaluation's forward pass, by that of `num_images`."""
    model = make_student(config).eval().requires_grad_(False)
    with fake_device(device), torch.no_grad():
        to_fake(model, device)
        batch = make_batch(model, num_images, device)
        with _without_values(config), StepMeter() as meter:
            meter.hold("student", [*model.parameters(), *model.buffers()])
            meter.hold("activations", vars(batch).values())
            with autocast("bf16" if is_bf16 else "fp32", device):
                logits = model(normalize(plain_view(batch.images)), batch.input_ids, batch.attention_mask)
            del logits
    return ForwardFigures(
        activations=round(meter.peak["activations"] * EVALUATED_AT_ONCE / num_images), flops=meter.flops // num_images
    )


def make_teacher(config: TrainConfig, student: ResModel) -> EmaTeacher | None:
    """The teacher, None in burn-in; puts the student into the modes that it is trained in, as the trainer does."""
    is_supervised = config.method == "supervised"
    student.train()
    if is_supervised and not config.text_dropout_burn_in:
        for module in student.text_modules():
            module.eval()
    return None if is_supervised else EmaTeacher(student, alpha=config.alpha)


def parameter_groups(config: TrainConfig, student: ResModel) -> list[dict[str, Any]]:
    """What the trainer hands to AdamW; leaves gradients to the parameters that are trained."""
    return student.parameter_groups(
        weight_decay=config.weight_decay, learning_rate=config.learning_rate, trunk_rate=config.trunk_rate
    )


def make_batch(model: ResModel, num_samples: int, device: torch.device) -> StepTensors:
    """Samples of the sizes that training has; what they hold means nothing."""
    size, tokens = model.image_size, num_tokens(model)
    return StepTensors(
        images=torch.zeros(num_samples, 3, size, size, dtype=torch.uint8, device=device),
        masks=torch.zeros(num_samples, size, size, dtype=torch.bool, device=device),
        input_ids=torch.ones(num_samples, tokens, dtype=torch.int64, device=device),
        attention_mask=torch.ones(num_samples, tokens, dtype=torch.int64, device=device),
    )


def compute_first_part(
    config: TrainConfig,
    student: nn.Module,
    teacher: EmaTeacher | None,
    batch: StepTensors,
    share: Share,
    *,
    is_bf16: bool,
    on_gradient: OnGradient,
    on_labels: Callable[[], None],
) -> None:
    """The gradients of a step's first part, as the trainer computes them, with the views and labels of all parts there.

    What is left out takes next to nothing: blur, jitter and matching. on_gradient: told each new gradient. on_labels:
    called when the teacher is done with its first part.
    """
    device, num_labeled = batch.images.device, share.labeled
    precision: Precision = "bf16" if is_bf16 else "fp32"
    images, masks = plain_view(batch.images[:num_labeled]), batch.masks
    weights: Tensor | None = None
    if teacher is not None:
        weak = plain_view(batch.images[num_labeled:])
        images = torch.cat([images, weak.clone()])
        num_read, num_at_once = teacher_reads(config, share)
        unlabeled = torch.arange(num_at_once, device=device) % share.unlabeled
        with autocast(precision, device):
            # Only where the teacher reads several expressions are images copied.
            shown = weak[:num_at_once] if num_read == share.unlabeled else weak.index_select(0, unlabeled)
            rows = num_labeled + unlabeled
            label, prob = teacher.pseudo_label(normalize(shown), batch.input_ids[rows], batch.attention_mask[rows])
        del shown
        on_labels()
        masks = torch.zeros_like(masks)  # the labels of all parts
        if config.is_weighted:
            weights = pwa_weights(prob.new_zeros(masks.shape))
        del label, prob
    part = slice(0, share.largest_part)

    def loss() -> Tensor:
        with autocast(precision, device):
            logits = student(normalize(images[part]), batch.input_ids[part], batch.attention_mask[part])
        if teacher is None:
            return supervised_loss(logits, masks[part], class_weights=config.class_weights)
        matched = torch.ones(len(logits), dtype=torch.bool, device=device)
        of_part = None if weights is None else weights[part]
        return unsupervised_loss(logits, masks[part], matched, of_part, class_weights=config.class_weights)

    walk_backward(loss, on_gradient)


@contextmanager
def _without_values(config: TrainConfig) -> Iterator[None]:
    """InputError where a model looks at a value in here."""
    try:
        yield
    except (UnsupportedFakeTensorException, DataDependentOutputException, DynamicOutputShapeException) as error:
        raise InputError(
            f"--plan: expected a model that computes without looking at values, found that {config.model} needs one "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); plan with another --model"
        ) from error
