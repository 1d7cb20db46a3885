"""What `semires study NAME` does: the study is found, changed as options say, conducted, printed and written."""

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.planning.studies.estimate import PlannedRun
from semires.pipeline.planning.studies.plan import plan_runs
from semires.pipeline.planning.studies.report import print_study_plan
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.launchers import CLUSTER_WORKERS, LaunchOptions, workers_here
from semires.pipeline.study.cells import CellRun, all_specs, study_runs
from semires.pipeline.study.conducting import conduct
from semires.pipeline.study.description import Study
from semires.pipeline.study.figures import figure_tables
from semires.pipeline.study.folders import run_folder, study_folder
from semires.pipeline.study.preparing import what_is_missing
from semires.pipeline.study.results import StudyResult
from semires.pipeline.study.tables import as_markdown, as_rich
from semires.stages.data.errors import InputError
from semires.stages.train.models.build import NANO_NAMES
from semires.stages.train.models.checkpoints.replacing import replace_text
from semires.stages.train.run_folder import RunFolder


def changed_study(
    study: Study,
    *,
    splits: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
    num_seeds: int | None = None,
) -> Study:
    """The study on other data sets, at other shares, with other seeds. InputError as `Study` raises it."""
    changes: dict[str, Any] = {}
    if splits:
        changes |= {"splits": tuple(splits), "only_here": False}
    of_all = {study.shares.get(split, ()) for split in study.splits}
    if splits and not shares and len(of_all) == 1:  # what the study says of all its data sets holds of others too
        shares = next(iter(of_all))
    if shares:
        changes["shares"] = dict.fromkeys(splits or study.splits, tuple(shares))
    if num_seeds is not None:
        changes["seeds"] = tuple(range(num_seeds))
    return dataclasses.replace(study, **changes)


def parse_settings(texts: Sequence[str], option: str) -> dict[str, Any]:
    """Settings typed as `name=value` or `match.inter1=0.6`; a value that is no TOML is text. InputError for others."""
    found: dict[str, Any] = {}
    for text in texts:
        name, is_there, value = text.partition("=")
        try:
            if not is_there:
                raise ValueError
            try:
                parsed = tomllib.loads(f"{name} = {value}")
            except tomllib.TOMLDecodeError:
                parsed = tomllib.loads(f"{name} = {json.dumps(value, ensure_ascii=False)}")
        except ValueError as error:
            raise InputError(f"{option}: expected NAME=VALUE, found {text!r}; write it so") from error
        for key, inner in parsed.items():
            known = found.get(key)
            found[key] = known | inner if isinstance(known, dict) and isinstance(inner, dict) else inner
    return found


def runs_of(
    study: Study,
    device: torch.device,
    *,
    settings: Mapping[str, Any] | None = None,
    backbones: Mapping[str, str] | None = None,
) -> tuple[CellRun, ...]:
    """The runs of a study. settings: of all of them; backbones: `swin` and `bert` of those whose model has them: the
    nano models bring their own. InputError as of `study_runs`."""
    runs = study_runs(study, device, settings)
    if not backbones:
        return runs
    found = study_runs(study, device, {**(settings or {}), **backbones})
    has_own = [run.spec.config.model in NANO_NAMES for run in runs]
    return tuple(old if own else new for old, new, own in zip(runs, found, has_own, strict=True))


def run_study(
    study: Study,
    runs: tuple[CellRun, ...],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    launch: LaunchOptions,
    log_to: Sequence[str] = (),
) -> tuple[StudyResult, bool]:
    """Conduct a study, print its tables and write them to `reports/<name>.md` and `reports/<name>.json`.

    Returns the result, and whether all was measured that was asked for: of a study that takes what is here
    (`only_here`) a data set that is not here is not missed.
    """
    console.print(_about(study, runs, paths), soft_wrap=True)
    result = conduct(study, runs, paths, device, on_progress, launch=launch, log_to=log_to)
    measured = {(run.row, run.split, run.share, run.seed) for run in result.runs}
    here = {split for split in study.splits if not study.only_here or what_is_missing(split, paths) is None}
    is_whole = bool(measured) and all(
        (run.row.name, run.split, run.share, run.seed) in measured for run in runs if run.split in here
    )
    if not result.tables:
        console.print(f"nothing was measured: what is in {paths.reports} stays as it is", soft_wrap=True)
        return result, False
    for table in as_rich(result):
        console.print(table)
    figures, numbers, notes = figure_tables(study, result, paths, device, on_progress)
    for table in figures:
        console.print(table)
    for note in notes:
        console.print(note, soft_wrap=True)
    content = {
        f"{study.name}.md": as_markdown(result, figures, notes),
        f"{study.name}.json": json.dumps(result.to_dict() | numbers, indent=1) + "\n",
    }
    for name, text in content.items():
        replace_text(paths.reports / name, text)
    console.print("written: " + ", ".join(str(paths.reports / name) for name in content), soft_wrap=True)
    return result, is_whole


def plan_study(
    study: Study,
    runs: tuple[CellRun, ...],
    paths: Paths,
    device: torch.device,
    *,
    launch: LaunchOptions,
    plan_device: str | None = None,
    write_json_to: Path | None = None,
) -> None:
    """Print what a study's runs will take; nothing is trained, and no data is needed.

    plan_device: a GPU's name in place of what is here. InputError as of `plan_runs`.
    """
    if plan_device is None and launch.device_of_runs(device).type != device.type:
        raise InputError("--plan: expected --plan-device, the cluster's GPU such as h100, found none; give it")
    console.print(_about(study, runs, paths), soft_wrap=True)
    specs = all_specs(runs)
    num_workers = launch.num_workers
    if num_workers is None and launch.launcher == "local" and plan_device is None:
        num_workers = len(workers_here(launch, device, len(specs))[0])
    elif num_workers is None:
        num_workers = 1 if launch.launcher == "local" else CLUSTER_WORKERS
    planned = [
        PlannedRun(
            label=label.rpartition(", seed ")[0],
            config=spec.config,
            folder=run_folder(paths, spec),
            burn_in=None if spec.burn_in is None else run_folder(paths, spec.burn_in),
            is_finished=RunFolder(run_folder(paths, spec)).is_finished,
        )
        for spec, label in specs.items()
    ]
    plan = plan_runs(
        planned,
        paths,
        plan_device,
        num_workers=num_workers,
        gpus_per_run=launch.gpus_per_run,
        known_runs=[study_folder(paths), paths.runs],
    )
    print_study_plan(plan, write_json_to)


def _about(study: Study, runs: tuple[CellRun, ...], paths: Paths) -> str:
    specs = all_specs(runs)
    num_burn_ins = sum(spec.burn_in is None for spec in specs)
    num_finished = sum(RunFolder(run_folder(paths, spec)).is_finished for spec in specs)
    return (
        f"{study.title}: {len(runs)} cells with {len(specs)} runs, {num_burn_ins} of them burn-ins; {num_finished} are "
        "finished"
    )
