"""A study from its description to its tables: what is not there yet is trained, then all is scored and gathered."""

from collections.abc import Sequence

import torch

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.views import CandidateView
from semires.pipeline.paths import Paths
from semires.pipeline.planning.plan import share_of
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.jobs import CandidatesJob, Job, TrainJob
from semires.pipeline.running.launchers import LaunchOptions, check_launch, make_launcher
from semires.pipeline.running.scheduling import Task, do_tasks
from semires.pipeline.running.stage_runs import lacks_candidates
from semires.pipeline.scoring.measuring import measure_target
from semires.pipeline.scoring.scores import counts_by_part, run_scores
from semires.pipeline.scoring.targets import choose_target
from semires.pipeline.study.cells import CellRun, RunSpec, all_specs
from semires.pipeline.study.description import Study
from semires.pipeline.study.folders import adopt_former, run_folder, study_folder
from semires.pipeline.study.gathering import ScoredRun, split_table
from semires.pipeline.study.preparing import Prepared, prepare_study
from semires.pipeline.study.results import StudyResult, StudyRun
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import plain_name, short_name
from semires.stages.processes.stopping import StopSignals
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


def conduct(
    study: Study,
    runs: tuple[CellRun, ...],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    launch: LaunchOptions | None = None,
    log_to: Sequence[str] = (),
) -> StudyResult:
    """Train what is not trained of `runs`, those of `study`, and measure all of them.

    A run that fails, or cannot be begun, costs the others nothing: it is said, and noted in the result. SIGTERM,
    SIGINT and SIGHUP end those under way, their states saved, and are raised as StopRequested.
    """
    launch = launch or LaunchOptions()
    check_launch(launch, device)
    for spec in all_specs(runs):
        share_of(spec.config, launch.gpus_per_run, "--gpus-per-run")
    adopt_former(paths, all_specs(runs))
    prepared = prepare_study(runs, paths, on_progress)
    for line in prepared.not_measured:
        console.print(f"not measured: {line}", soft_wrap=True)
    specs = all_specs(prepared.runs)
    tasks = _tasks(specs, prepared.datasets, paths, launch, log_to)
    failed: tuple[str, ...] = ()
    if not all(task.is_done() for task in tasks):
        launcher = make_launcher(
            launch, paths, launch.device_of_runs(device), len(specs), study_folder(paths) / "logs", on_progress
        )
        with StopSignals() as stop, stop.interruptible():
            failed = tuple(f"{job.label}: {why}" for job, why in do_tasks(tasks, launcher, on_progress).items())
    return gather(study, runs, prepared, paths, device, on_progress, failed=failed)


def gather(
    study: Study,
    runs: tuple[CellRun, ...],
    prepared: Prepared,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    failed: Sequence[str] = (),
) -> StudyResult:
    """The result of those of a study's runs that are finished; nothing is trained. failed: what failed, and with
    what, a line each."""
    not_measured = dict.fromkeys([*prepared.not_measured, *failed])
    scored: list[ScoredRun] = []
    for run in prepared.runs:
        if not RunFolder(run_folder(paths, run.spec)).is_finished:
            if not failed:
                not_measured[f"{run.label}: not trained yet"] = None
            continue
        try:
            dataset = prepared.datasets[run.split]
            scored.append(_scored(run, dataset, study.subsets, paths, device, on_progress))
        except (InputError, StoreError, OSError) as error:
            not_measured[f"{run.label}: {error}"] = None
    tables = []
    for split in study.splits:
        of_split = [found for found in scored if found.run.split == split]
        if of_split:
            tables.append(split_table(study, split, _shares(split, runs), of_split))
    return StudyResult(
        name=study.name,
        title=study.title,
        table=study.table,
        tables=tuple(tables),
        runs=tuple(found.run for found in scored),
        not_measured=tuple(not_measured),
    )


def _shares(split: str, runs: Sequence[CellRun]) -> dict[str, tuple[float, ...]]:
    found: dict[str, dict[float, None]] = {}
    for run in runs:
        if run.split == split:
            found.setdefault(run.row.name, {})[run.share] = None
    return {name: tuple(shares) for name, shares in found.items()}


def _tasks(
    specs: dict[RunSpec, str],
    datasets: dict[str, ReferDataset],
    paths: Paths,
    launch: LaunchOptions,
    log_to: Sequence[str],
) -> list[Task]:
    """A task a run, burn-ins first, for they are waited for; before them the candidates that refined runs need."""
    jobs: dict[RunSpec, Job] = {}
    candidates: dict[tuple[str, int], Task] = {}
    tasks = []
    for spec, label in sorted(specs.items(), key=lambda item: item[0].burn_in is not None):
        job = TrainJob(
            label=label,
            config=spec.config,
            folder=run_folder(paths, spec),
            burn_in=None if spec.burn_in is None else run_folder(paths, spec.burn_in),
            log_to=tuple(log_to),
            num_processes=launch.gpus_per_run,
        )
        jobs[spec] = job
        needs = [] if spec.burn_in is None else [jobs[spec.burn_in]]
        if spec.config.is_refined:
            key = spec.config.split, spec.config.model_image_size
            if key not in candidates:
                candidates[key] = _candidates(spec.config, datasets[spec.config.split], paths)
            needs.append(candidates[key].job)
        tasks.append(Task(job=job, needs=tuple(needs), is_done=job.is_done))
    return [*candidates.values(), *tasks]


def _candidates(config: TrainConfig, dataset: ReferDataset, paths: Paths) -> Task:
    """RefShapes' candidates, where they are not there, and those of any data set at the training size."""
    store, size = paths.store(config.split), config.model_image_size
    job = CandidatesJob(
        label=f"candidates of {plain_name(config.split)} at {size}x{size}",
        config=config,
        folder=study_folder(paths) / f"candidates-{short_name(config.split)}-{size}",
    )

    def is_done() -> bool:
        if lacks_candidates(paths, dataset, store):
            return False
        try:
            return len(CandidateView(store, size)) == len(CandidateStore(store))
        except StoreError:
            return False

    return Task(job=job, needs=(), is_done=is_done)


def _scored(
    run: CellRun,
    dataset: ReferDataset,
    subsets: Sequence[str],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
) -> ScoredRun:
    folder = run_folder(paths, run.spec)
    measured = measure_target(choose_target(folder, paths, on_progress, dataset), device, on_progress)
    found = StudyRun(
        row=run.row.name,
        split=run.split,
        share=run.share,
        seed=run.seed,
        folder=folder,
        burn_in=None if run.spec.burn_in is None else run_folder(paths, run.spec.burn_in),
        scores=run_scores(measured),
    )
    return ScoredRun(run=found, counts=counts_by_part(measured, subsets))
