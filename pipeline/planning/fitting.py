"""Which options make a step fit into a device's memory."""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from semires.pipeline.planning.step import Share, StepFigures, plan_step
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.lavt.config import LAVT_SIZES


@dataclass(frozen=True, kw_only=True)
class Remedy:
    """`options` that a run is to be given, and the bytes at the peak with them; `fits` is whether that is enough."""

    options: str
    peak_bytes: int
    fits: bool


def find_remedy(
    config: TrainConfig, share: Share, found: StepFigures, device: torch.device, available: int, *, is_bf16: bool
) -> Remedy:
    """The first of `--grad-checkpointing` and ever smaller `--micro-batch` under which a step takes `available` bytes.

    found: the figures without them. Whole steps are computed for few candidates only: what grows with the samples at
    once is proportional to them, so two steps tell which candidate comes into question, and a third one checks it.
    Where none fits, the smallest.
    """
    can_recompute = config.model in LAVT_SIZES and not config.gradient_checkpointing
    grows = {config.gradient_checkpointing: found.peak["activations"] / share.at_once}
    if can_recompute:
        recomputing = _compute(config, share, device, True, is_bf16)
        if recomputing.peak_bytes <= available:
            return _remedy(share.at_once, share, True, recomputing, available)
        grows[True] = recomputing.peak["activations"] / share.at_once
    kept = sum(found.peak[kind] for kind in ("student", "teacher", "optimizer"))
    trained = found.peak["optimizer"] // 2
    for at_once, is_recomputing in _candidates(share, grows):
        expected = kept + trained + grows[is_recomputing] * at_once
        is_last = at_once == 1 and is_recomputing == max(grows)
        if expected > available and not is_last:
            continue
        smaller = dataclasses.replace(share, at_once=at_once)
        figures = _compute(config, smaller, device, is_recomputing, is_bf16)
        if figures.peak_bytes <= available or is_last:
            newly = is_recomputing and not config.gradient_checkpointing
            return _remedy(at_once, share, newly, figures, available)
    raise AssertionError("the last candidate returns")


def _candidates(share: Share, grows: dict[bool, float]) -> Iterator[tuple[int, bool]]:
    """Parts of a half, a third, ... of the samples, each first without computing anything twice."""
    num_samples = share.labeled + share.unlabeled
    tried = {share.at_once}
    for num_parts in range(2, num_samples + 1):
        at_once = -(-num_samples // num_parts)
        if at_once >= share.at_once or at_once in tried:
            continue
        tried.add(at_once)
        for is_recomputing in sorted(grows):
            yield at_once, is_recomputing
    if share.at_once == 1:
        yield 1, max(grows)


def _compute(config: TrainConfig, share: Share, device: torch.device, recompute: bool, is_bf16: bool) -> StepFigures:
    return plan_step(dataclasses.replace(config, gradient_checkpointing=recompute), share, device, is_bf16=is_bf16)


def _remedy(at_once: int, before: Share, newly_recomputing: bool, figures: StepFigures, available: int) -> Remedy:
    options = [f"--micro-batch {at_once}"] if at_once != before.at_once else []
    options += ["--grad-checkpointing"] if newly_recomputing else []
    return Remedy(options=" ".join(options), peak_bytes=figures.peak_bytes, fits=figures.peak_bytes <= available)
