"""What a run of a study will take, by runs of its kind that are finished, else by its operations; many in little time.

Where `make_plan` computes a whole step of each phase on fake tensors, here one sample's is enough for all runs of a
model: operations grow with the samples.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from semires.pipeline.datasets import read_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.planning.counts import RunCounts, count_samples
from semires.pipeline.planning.devices import PlanDevice
from semires.pipeline.planning.meter import KINDS
from semires.pipeline.planning.plan import SHARE_OF_PEAK, PhasePlan, plan_disk, plan_phase, share_of
from semires.pipeline.planning.step import Share, StepFigures, teacher_reads
from semires.pipeline.planning.studies.known_runs import KnownRuns, kind_of
from semires.pipeline.planning.studies.sample import SampleFigures, plan_sample
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """A run of a study. label: what runs are called that differ in their seeds alone. burn_in: the folder of the run
    that it starts from; None of a supervised one, and where it makes its own."""

    label: str
    config: TrainConfig
    folder: Path
    burn_in: Path | None
    is_finished: bool


@dataclass(frozen=True, kw_only=True)
class RunEstimate:
    """What a whole run takes, whether or not it is finished. seconds: from its first step to its last, evaluations on
    val and an own burn-in included; source: where they are from, or why they are None. disk_at_most, disk_afterwards:
    bytes in its folder while it trains and when it is done; None for models that cannot be planned."""

    seconds: float | None
    source: str
    disk_at_most: int | None
    disk_afterwards: int | None


class Estimator:
    """Estimates runs one by one; what those share is computed once.

    num_workers: runs side by side, which on a CPU share its cores. gpus_per_run: processes that train one.
    """

    def __init__(
        self, paths: Paths, device: PlanDevice, known: KnownRuns, *, num_workers: int = 1, gpus_per_run: int = 1
    ) -> None:
        self._paths = paths
        self._device = device
        self._known = known
        self._gpus_per_run = gpus_per_run
        self._num_sharing = num_workers if device.type == "cpu" else 1
        self._samples: dict[tuple[object, ...], SampleFigures | InputError] = {}
        self._counts: dict[str, RunCounts | None] = {}
        self._estimates: dict[tuple[str, bool], RunEstimate] = {}
        self._read: tuple[str, ReferDataset | None] | None = None

    def estimate(self, config: TrainConfig, *, has_burn_in: bool) -> RunEstimate:
        """The estimate of a run of `config`; has_burn_in: it starts from one that another run makes.

        InputError for settings that so many GPUs cannot share, and for a data set that is here and cannot be read.
        """
        kind = (kind_of(config, self._device), has_burn_in)
        if kind not in self._estimates:
            self._estimates[kind] = self._estimate(config, has_burn_in=has_burn_in)
        return self._estimates[kind]

    @property
    def problems(self) -> list[str]:
        """Why models cannot be planned, a line each."""
        return [str(found) for found in self._samples.values() if isinstance(found, InputError)]

    def _estimate(self, config: TrainConfig, *, has_burn_in: bool) -> RunEstimate:
        makes_own = config.method != "supervised" and not has_burn_in
        parts = [config.burn_in(), config] if makes_own else [config]
        found = [self._part(part) for part in parts]
        seconds = [seconds for seconds, _, _ in found if seconds is not None]
        phases = [phase for _, _, phase in found if phase is not None]
        disk = plan_disk(phases) if len(phases) == len(parts) else None
        return RunEstimate(
            seconds=sum(seconds) if len(seconds) == len(parts) else None,
            source="; ".join(dict.fromkeys(source for _, source, _ in found)),
            disk_at_most=None if disk is None else disk.at_most,
            disk_afterwards=None if disk is None else disk.afterwards,
        )

    def _part(self, config: TrainConfig) -> tuple[float | None, str, PhasePlan | None]:
        """Of the one phase that `config` adds to what it starts from: seconds, where they are from, its plan."""
        share, sample = share_of(config, self._gpus_per_run, "--gpus-per-run"), self._sample(config)
        num_threads = max(torch.get_num_threads() // self._num_sharing, 1)
        known = self._known.time_of(kind_of(config, self._device), num_threads)
        if known is not None:
            source = "1 finished run" if known.num_runs == 1 else f"{known.num_runs} finished runs"
            phase = None if isinstance(sample, InputError) else self._phase(config, share, sample, None)
            return known.seconds, source, phase
        if isinstance(sample, InputError):
            return None, f"{config.model} cannot be planned", None
        phase = self._phase(config, share, sample, self._count(config))
        if phase.seconds is None or phase.evaluation_seconds is None:
            return None, f"the data of {config.split} is not here, and no counts of it are known", phase
        return phase.seconds + phase.evaluation_seconds, "operations", phase

    def _phase(self, config: TrainConfig, share: Share, sample: SampleFigures, counts: RunCounts | None) -> PhasePlan:
        is_burn_in, (num_read, _) = config.method == "supervised", teacher_reads(config, share)
        figures = StepFigures(
            peak={
                **dict.fromkeys(KINDS, 0),
                "student": sample.weights,
                "teacher": 0 if is_burn_in else sample.weights,
                "optimizer": sample.moments,
            },
            flops_student=sample.flops_student * share.num_samples,
            flops_teacher=sample.flops_forward * num_read,
        )
        _, peak = self._device.peak(is_bf16=self._is_bf16(config))
        speed = SHARE_OF_PEAK * peak * 1e12 / self._num_sharing
        name = "burn-in" if is_burn_in else "mutual"
        return plan_phase(name, config, share, figures, counts, self._gpus_per_run, speed, sample.flops_forward)

    def _sample(self, config: TrainConfig) -> SampleFigures | InputError:
        model = (config.model, config.window, config.image_size, config.clipseg, config.gradient_checkpointing)
        if model not in self._samples:
            try:
                self._samples[model] = plan_sample(config)
            except InputError as error:  # the study's other runs can be planned
                self._samples[model] = error
        return self._samples[model]

    def _is_bf16(self, config: TrainConfig) -> bool:
        return self._device.has_bf16 if config.precision == "auto" else config.precision == "bf16"

    def _count(self, config: TrainConfig) -> RunCounts | None:
        kind = kind_of(config, self._device)
        if kind not in self._counts:
            if self._read is None or self._read[0] != config.split:
                is_here = not self._paths.missing_files(config.split)
                self._read = config.split, read_dataset(self._paths, config.split) if is_here else None
            self._counts[kind] = count_samples(config, self._paths, self._read[1])
        return self._counts[kind]
