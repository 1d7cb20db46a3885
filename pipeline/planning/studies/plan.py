"""What all runs of a study will take: hours, with so many workers, and disk, before any of them is begun.

plan = plan_runs(runs, Paths(), "a100", num_workers=4, gpus_per_run=1, known_runs=[Path("runs")])
"""

import heapq
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from semires.pipeline.paths import Paths
from semires.pipeline.planning.devices import plan_device
from semires.pipeline.planning.plan import SHARE_OF_PEAK
from semires.pipeline.planning.studies.estimate import Estimator, PlannedRun, RunEstimate
from semires.pipeline.planning.studies.known_runs import KnownRuns
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class KindPlan:
    """Runs that differ in their seeds alone. num_burn_ins: the folders that they start from; seconds, source: of one,
    as in `RunEstimate`; remaining_seconds: of all that are not finished."""

    label: str
    num_runs: int
    num_finished: int
    num_burn_ins: int
    seconds: float | None
    remaining_seconds: float | None
    source: str


@dataclass(frozen=True, kw_only=True)
class StudyPlan:
    """A study's plan. num_burn_ins: the folders that `num_starting` runs start from. work_seconds: of all runs that are
    not finished, added up; elapsed_seconds: until so many workers are done with them. Both are None where a run's time
    is not known. disk_at_most, disk_afterwards: bytes of the runs that are not finished, while they train and when all
    are done; None where a model cannot be planned. notes: what a reader must know, a line each.
    """

    device: str
    speed: str
    num_workers: int
    gpus_per_run: int
    kinds: tuple[KindPlan, ...]
    num_runs: int
    num_finished: int
    num_burn_ins: int
    num_starting: int
    work_seconds: float | None
    elapsed_seconds: float | None
    disk_at_most: int | None
    disk_afterwards: int | None
    notes: tuple[str, ...]


def plan_runs(
    runs: Sequence[PlannedRun],
    paths: Paths,
    device_name: str | None,
    *,
    num_workers: int = 1,
    gpus_per_run: int = 1,
    known_runs: Sequence[Path] = (),
) -> StudyPlan:
    """Plan runs, each folder once, in the order in which they would be begun, and the burn-ins that are not among them.

    device_name: as `plan_device` takes it. num_workers: runs side by side, 1 or more. known_runs: folders in which
    finished runs are looked for. InputError as of `plan_device` and `Estimator.estimate`.
    """
    device = plan_device(device_name)
    known = KnownRuns(known_runs, device, gpus_per_run)
    estimator = Estimator(paths, device, known, num_workers=num_workers, gpus_per_run=gpus_per_run)
    runs = _with_burn_ins(runs)
    estimates = {run.folder: estimator.estimate(run.config, has_burn_in=run.burn_in is not None) for run in runs}
    pending = [run for run in runs if not run.is_finished]
    seconds = {run.folder: estimates[run.folder].seconds for run in pending}
    work = [value for value in seconds.values() if value is not None]
    at_most, afterwards = _disk([estimates[run.folder] for run in pending], num_workers)
    _, peak = device.peak(is_bf16=device.has_bf16)
    starts = [run.burn_in for run in runs if run.burn_in is not None]
    return StudyPlan(
        device=device.title,
        speed=f"{SHARE_OF_PEAK:.0%} of {peak:.3g} TFLOP/s, {device.source}",
        num_workers=num_workers,
        gpus_per_run=gpus_per_run,
        kinds=tuple(_kinds(runs, estimates)),
        num_runs=len(runs),
        num_finished=len(runs) - len(pending),
        num_burn_ins=len(set(starts)),
        num_starting=len(starts),
        work_seconds=sum(work) if len(work) == len(pending) else None,
        elapsed_seconds=elapsed(pending, seconds, num_workers),
        disk_at_most=at_most,
        disk_afterwards=afterwards,
        notes=(*_notes(known, num_workers if device.type == "cpu" else 1), *estimator.problems),
    )


def elapsed(runs: Sequence[PlannedRun], seconds: Mapping[Path, float | None], num_workers: int) -> float | None:
    """Seconds until the last of `runs` is done: a worker that is free takes the first of them that can begin, whose
    burn-in, if that is among them, is done. seconds: by folder; None where one is None."""
    waiting, unfinished, now = list(runs), {run.folder for run in runs}, 0.0
    working: list[tuple[float, str, Path]] = []
    while waiting or working:
        for run in [run for run in waiting if run.burn_in not in unfinished][: num_workers - len(working)]:
            needed = seconds[run.folder]
            if needed is None:
                return None
            waiting.remove(run)
            heapq.heappush(working, (now + needed, str(run.folder), run.folder))
        now, _, folder = heapq.heappop(working)
        unfinished.discard(folder)
    return now


def _with_burn_ins(runs: Sequence[PlannedRun]) -> list[PlannedRun]:
    """Each folder once; before the first that starts from it, a burn-in that nobody named."""
    named, found = {run.folder for run in runs}, dict[Path, PlannedRun]()
    for run in runs:
        if run.burn_in is not None and run.burn_in not in named:
            burn_in = PlannedRun(
                label=f"burn-in of {run.config.split}, {run.config.labeled_name}",
                config=run.config.burn_in(),
                folder=run.burn_in,
                burn_in=None,
                is_finished=RunFolder(run.burn_in).is_finished,
            )
            found.setdefault(run.burn_in, burn_in)
        found.setdefault(run.folder, run)
    return list(found.values())


def _kinds(runs: Sequence[PlannedRun], estimates: Mapping[Path, RunEstimate]) -> Iterator[KindPlan]:
    groups: dict[tuple[str, RunEstimate], list[PlannedRun]] = defaultdict(list)
    for run in runs:
        groups[run.label, estimates[run.folder]].append(run)
    for (label, estimate), of_kind in groups.items():
        num_finished = sum(run.is_finished for run in of_kind)
        yield KindPlan(
            label=label,
            num_runs=len(of_kind),
            num_finished=num_finished,
            num_burn_ins=len({run.burn_in for run in of_kind if run.burn_in is not None}),
            seconds=estimate.seconds,
            remaining_seconds=_times(estimate.seconds, len(of_kind) - num_finished),
            source=estimate.source,
        )


def _disk(estimates: Sequence[RunEstimate], num_workers: int) -> tuple[int | None, int | None]:
    """Bytes at most and afterwards: all that runs leave, and beside it what those that take the most of it hold while
    they train side by side."""
    afterwards, more = [], []
    for estimate in estimates:
        if estimate.disk_at_most is None or estimate.disk_afterwards is None:
            return None, None
        afterwards.append(estimate.disk_afterwards)
        more.append(estimate.disk_at_most - estimate.disk_afterwards)
    return sum(afterwards) + sum(sorted(more)[-num_workers:]), sum(afterwards)


def _times(seconds: float | None, num: int) -> float | None:
    """Nothing is left of what is finished, however long it took."""
    return 0.0 if num == 0 else None if seconds is None else seconds * num


def _notes(known: KnownRuns, num_sharing: int) -> Iterator[str]:
    yield (
        f"finished runs: those of the same settings but for seeds and what changes no work; operations: at "
        f"{SHARE_OF_PEAK:.0%} of the speed, which is an assumption, and nothing is waited for"
    )
    if num_sharing > 1:
        yield f"{num_sharing} runs side by side share the processor: each has that part of its speed"
    yield (
        "not in it: candidates (stage one), reading the data, scoring what is trained on the test splits; a run that "
        "is begun is counted whole"
    )
    if known.num_unread:
        yield f"finished runs that cannot be read, and were left out: {known.num_unread}"
