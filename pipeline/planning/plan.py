"""What a run will take: parameters, operations, memory, steps, time and disk, before anything of it exists.

plan = make_plan(config, counts, plan_device("h100"), num_gpus=1)
"""

import dataclasses
import math
from dataclasses import dataclass

import torch

from semires.pipeline.planning.counts import RunCounts
from semires.pipeline.planning.devices import GIB, PlanDevice
from semires.pipeline.planning.fitting import Remedy, find_remedy
from semires.pipeline.planning.step import Share, StepFigures, make_student, plan_forward, plan_step
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig

SHARE_OF_PEAK = 0.4
"""Of a device's peak that training is assumed to reach."""
RESERVE = 3 * GIB // 2
"""Bytes of a device assumed to be taken by what is not counted."""
STATES = 3
"""Two states are kept while the next is written."""


@dataclass(frozen=True, kw_only=True)
class PartParameters:
    """Parameters of one of the model's top modules."""

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True, kw_only=True)
class PhasePlan:
    """Burn-in or mutual learning. `share`: of one process; `figures`: its step. `steps` and what follows from it are
    None where the number of samples is not known; `seconds` is training alone, `evaluation_seconds` that on val."""

    name: str
    batch: int
    share: Share
    figures: StepFigures
    epochs: int
    step_seconds: float
    steps: int | None
    evaluations: int | None
    seconds: float | None
    evaluation_seconds: float | None
    flops: int | None


@dataclass(frozen=True, kw_only=True)
class DiskPlan:
    """Bytes: of one state and of one model's weights, at most while training, and after it."""

    state: int
    weights: int
    at_most: int
    afterwards: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run's plan. `evaluation_peak`: bytes while evaluating, with all that training holds meanwhile."""

    split: str
    method: str
    model: str
    image_size: int
    precision: str
    computes_in: str
    device: PlanDevice
    num_gpus: int
    is_compiled: bool
    parts: list[PartParameters]
    phases: list[PhasePlan]
    evaluation_flops: int
    evaluation_peak: int
    counts: RunCounts | None
    disk: DiskPlan
    available: int
    remedy: Remedy | None

    @property
    def highest_peak(self) -> int:
        """Bytes of the fullest moment of all."""
        return max(self.evaluation_peak, *(phase.figures.peak_bytes for phase in self.phases))

    @property
    def seconds(self) -> float | None:
        """Of the whole run, or None where the number of steps is not known."""
        total = 0.0
        for phase in self.phases:
            if phase.seconds is None or phase.evaluation_seconds is None:
                return None
            total += phase.seconds + phase.evaluation_seconds
        return total


def make_plan(
    config: TrainConfig,
    counts: RunCounts | None,
    device: PlanDevice,
    *,
    num_gpus: int = 1,
    has_burn_in: bool = False,
) -> Plan:
    """Plan the run of `config` on `num_gpus` devices, a process each.

    has_burn_in: it starts from one that is finished.
    InputError where a process would have no sample, and for models that cannot be computed on fake tensors.
    """
    is_bf16 = device.has_bf16 if config.precision == "auto" else config.precision == "bf16"
    number_format, peak = device.peak(is_bf16=is_bf16)
    speed = SHARE_OF_PEAK * peak * 1e12
    on = torch.device(device.type)
    # As many images as the teacher labels at once: torch remembers what it computed of their sizes.
    share = share_of(config, num_gpus)
    num_images = min(share.unlabeled or share.labeled, share.at_once)
    forward = plan_forward(config, num_images, on, is_bf16=is_bf16)
    configs = {"mutual": config} if config.method != "supervised" else {}
    if config.method == "supervised" or not has_burn_in:
        configs = {"burn-in": config.burn_in(), **configs}
    phases = []
    for name, of_phase in configs.items():
        share = share_of(of_phase, num_gpus)
        figures = plan_step(of_phase, share, on, is_bf16=is_bf16)
        phases.append(plan_phase(name, of_phase, share, figures, counts, num_gpus, speed, forward.flops))

    available = device.memory - RESERVE
    fullest = max(phases, key=lambda phase: phase.figures.peak_bytes)
    # Of several that do not fit the last is mutual learning, which has a teacher too: what suits it suits burn-in.
    too_full = [phase for phase in phases if phase.figures.peak_bytes > available]
    remedy = None
    if too_full:
        last = too_full[-1]
        remedy = find_remedy(configs[last.name], last.share, last.figures, on, available, is_bf16=is_bf16)
    static = sum(fullest.figures.peak[kind] for kind in ("student", "teacher", "optimizer"))
    gradients = fullest.figures.peak["optimizer"] // 2  # those of the last step
    return Plan(
        split=config.split,
        method=config.method,
        model=config.model,
        image_size=config.model_image_size,
        precision="bf16" if is_bf16 else "fp32",
        computes_in=number_format,
        device=device,
        num_gpus=num_gpus,
        is_compiled=config.compile,
        parts=_parts(config),
        phases=phases,
        evaluation_flops=forward.flops,
        evaluation_peak=static + gradients + forward.activations,
        counts=counts,
        disk=plan_disk(phases),
        available=available,
        remedy=remedy,
    )


def share_of(config: TrainConfig, num_gpus: int, option: str = "--plan-gpus") -> Share:
    """What one of `num_gpus` processes has of a step: the larger share, where a batch is not shared evenly.

    InputError, about the `option` that asked for so many, where one would have no sample.
    """
    batches = [config.batch_burn_in, 0]
    if config.method != "supervised":
        batches = [config.batch_labeled, config.batch_unlabeled]
    if not 1 <= num_gpus <= min(batch for batch in batches if batch):
        raise InputError(
            f"{option}: expected 1 or more, and a sample of each kind for each, found {num_gpus} for batches of "
            f"{' + '.join(str(batch) for batch in batches if batch)}; raise the batches or plan for fewer"
        )
    labeled, unlabeled = (math.ceil(batch / num_gpus) for batch in batches)
    samples = labeled + unlabeled
    return Share(labeled=labeled, unlabeled=unlabeled, at_once=min(config.micro_batch or samples, samples))


def plan_phase(
    name: str,
    config: TrainConfig,
    share: Share,
    figures: StepFigures,
    counts: RunCounts | None,
    num_gpus: int,
    speed: float,
    evaluation_flops: int,
) -> PhasePlan:
    """The phase `name`, "burn-in" or "mutual". figures: of a step of `share`; speed: FLOPs a second of one process;
    evaluation_flops: of an expression."""
    is_burn_in = name == "burn-in"
    batch = config.batch_burn_in if is_burn_in else config.batch_labeled + config.batch_unlabeled
    epochs = config.burn_in_epochs if is_burn_in else config.mutual_epochs
    flops = figures.flops_student + figures.flops_teacher
    plan = PhasePlan(
        name=name,
        batch=batch,
        share=share,
        figures=figures,
        epochs=epochs,
        step_seconds=flops / speed,
        steps=None,
        evaluations=None,
        seconds=None,
        evaluation_seconds=None,
        flops=None,
    )
    if counts is None:
        return plan
    of_burn_in = max(counts.labeled * epochs // config.batch_burn_in, 1)
    steps = of_burn_in if is_burn_in else counts.mutual_steps
    evaluations = min(config.num_evaluations, steps)
    of_evaluation = evaluations * counts.val_expressions * evaluation_flops
    of_training = steps * flops * batch / share.num_samples
    return dataclasses.replace(
        plan,
        steps=steps,
        evaluations=evaluations,
        seconds=steps * flops / speed,
        evaluation_seconds=of_evaluation / num_gpus / speed,
        flops=round(of_training + of_evaluation),
    )


def _parts(config: TrainConfig) -> list[PartParameters]:
    """The model's top modules, and what lies beside them."""
    model = make_student(config)
    model.parameter_groups(
        weight_decay=config.weight_decay, learning_rate=config.learning_rate, trunk_rate=config.trunk_rate
    )
    own = [*model.named_children(), ("", model)]
    counted: set[int] = set()
    parts = []
    for name, module in own:
        parameters = [parameter for parameter in module.parameters() if id(parameter) not in counted]
        counted |= {id(parameter) for parameter in parameters}
        if parameters:
            trained = sum(parameter.numel() for parameter in parameters if parameter.requires_grad)
            total = sum(parameter.numel() for parameter in parameters)
            parts.append(PartParameters(name=name or "the rest", parameters=total, trained=trained))
    return parts


def plan_disk(phases: list[PhasePlan]) -> DiskPlan:
    """What lies in the folder of a run of these phases; the metrics, a line an evaluation, are too short to count."""
    largest = max(phases, key=lambda phase: phase.figures.peak["teacher"]).figures.peak
    weights = largest["student"]
    state = weights + largest["teacher"] + largest["optimizer"]
    finished = weights * len(phases)
    return DiskPlan(state=state, weights=weights, at_most=STATES * state + finished + weights, afterwards=finished)
