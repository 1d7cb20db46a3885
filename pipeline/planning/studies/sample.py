"""What a model computes of one sample, on tensors that hold nothing: enough for runs whose memory nobody asks about.

`plan_step` follows a step of one device with all that it holds. Of LAVT-base this takes 1.9 s of a core, that 4.9,
and 10.2 for a GPU. The operations are those of a CPU: on CUDA the backward pass of attention computes scores again,
0.6% more in all.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from unittest import mock

import torch

from semires.pipeline.planning.meter import StepMeter
from semires.pipeline.planning.step import make_batch, make_student, parameter_groups
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.losses import supervised_loss
from semires.stages.train.models.normalization import normalize
from semires.stages.train.views import plain_view

# Batch norm may want several.
_NUM_SAMPLES = 2


@dataclass(frozen=True, kw_only=True)
class SampleFigures:
    """flops_student: forward, backward and what is recomputed of a sample; flops_forward: a forward pass alone, the
    teacher's or the evaluation's. weights, moments: bytes of the model, and of what AdamW keeps of it."""

    flops_student: int
    flops_forward: int
    weights: int
    moments: int


def plan_sample(config: TrainConfig) -> SampleFigures:
    """The figures of the run's model. InputError for a model that cannot be computed on tensors without values."""
    student = make_student(config).to("meta")
    groups = parameter_groups(config, student)
    batch = make_batch(student, _NUM_SAMPLES, torch.device("meta"))
    images = normalize(plain_view(batch.images))
    with _on_meta(config), StepMeter() as meter:
        with torch.no_grad():
            student.eval()(images, batch.input_ids, batch.attention_mask)
        forward = meter.flops
        logits = student.train()(images, batch.input_ids, batch.attention_mask)
        supervised_loss(logits, batch.masks, class_weights=config.class_weights).backward()
    trained = sum(parameter.nbytes for group in groups for parameter in group["params"])
    return SampleFigures(
        flops_student=(meter.flops - forward) // _NUM_SAMPLES,
        flops_forward=forward // _NUM_SAMPLES,
        weights=sum(tensor.nbytes for tensor in (*student.parameters(), *student.buffers())),
        moments=2 * trained,
    )


@contextmanager
def _on_meta(config: TrainConfig) -> Iterator[None]:
    """Autocast knows no meta device: there it is off. InputError where a model looks at a value in here."""
    is_enabled = torch.is_autocast_enabled
    try:
        with mock.patch("torch.is_autocast_enabled", lambda *on: on != ("meta",) and is_enabled(*on)):
            yield
    except (NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"--plan: expected a model that computes without looking at values, found that {config.model} needs one "
            f"({type(error).__name__}: {' '.join(str(error).split())[:120]}); plan with another --model"
        ) from error
