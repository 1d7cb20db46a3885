"""Table 1: Supervised, Baseline and SemiRES at the labeled shares, and SemiRES-CC, which is not the paper's, for every
data set that is here.

Every run has its own folder, `runs/table1/<split>/<share>/seed<n>/<method>`; a finished one is not repeated and an
interrupted one goes on, so that the command can be stopped and typed again.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.recipes import TABLE1_METHODS, TABLE1_SHARES, train_recipe
from semires.pipeline.reporting.tables import METHODS, Measured, as_json, as_markdown, as_rich, split_table
from semires.pipeline.running.side_by_side import CandidatesJob, Job, is_worth_it, train_side_by_side
from semires.pipeline.running.stage_runs import lacks_candidates, prepare, train
from semires.pipeline.scoring.scores import evaluate_run
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import is_own_data, short_name, spec_of
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.checkpoints.replacing import replace_text
from semires.stages.train.run import as_begun
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class GridRun:
    """One cell's run: its settings, its folder, and the burn-in that the methods of one seed share."""

    config: TrainConfig
    seed: int
    folder: Path
    burn_in: Path | None


def plan_grid(
    split: str, shares: Sequence[float], num_seeds: int, root: Path, changes: Mapping[str, Any] | None = None
) -> list[GridRun]:
    """All runs of one data set, in the order in which they are done. changes: settings that are not the recipe's.

    The labeled images are those of the published split (`labeled_seed` 0) under every seed."""
    runs = []
    for seed in range(num_seeds):
        for share in shares:
            folder = root / short_name(split) / f"{share:g}" / f"seed{seed}"
            base = dataclasses.replace(train_recipe(split), labeled=share, seed=seed, **(changes or {}))
            for method in TABLE1_METHODS:
                # The burn-in *is* the supervised run: its settings hold nothing that only the other methods read.
                config = dataclasses.replace(base.burn_in() if method == "supervised" else base, method=method)
                burn_in = None if method == "supervised" else folder / "supervised"
                runs.append(GridRun(config=config, seed=seed, folder=folder / method, burn_in=burn_in))
    return runs


def what_is_missing(split: str, paths: Paths) -> str | None:
    """What keeps a data set from being measured and what to put where, in one line; None if nothing does."""
    if split == "refshapes":
        return None
    missing = paths.missing_files(split)
    if missing and is_own_data(split):
        return f"{split}: expected a file there, found none; check the path"
    if missing:
        return (
            f"{split}: missing {', '.join(map(str, missing))}; {spec_of(split).hint}, then run "
            f"`semires cache-sam --split {quote(split)} --sam-checkpoint FILE`"
        )
    try:
        num_images = len(CandidateStore(paths.store(split)))
    except StoreError:
        num_images = 0
    if not num_images:
        return (
            f"{split}: its data is here, its candidates are not: run `semires cache-sam --split {quote(split)} "
            "--sam-checkpoint FILE`"
        )
    return None


def run_table1(
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    splits: Sequence[str] | None = None,
    shares: Sequence[float] | None = None,
    num_seeds: int = 1,
    swin: str | None = None,
    bert: str | None = None,
    num_workers: int | None = None,
    log_to: Sequence[str] = (),
) -> bool:
    """Measure, print and write the table to `reports/table1.md` and `reports/table1.json`; each run is told to the
    loggers `log_to` under its own name. swin, bert, num_workers: settings of the runs, the former two of those whose
    model has them.

    Returns whether all was measured of the data sets that are here: what keeps one from it, too few images for a share
    for instance, is said and noted, and costs the others nothing. InputError for a split that is not in Table 1.
    """
    for split in splits or ():
        if split not in TABLE1_SHARES and not is_own_data(split):
            raise InputError(
                f"--split: expected one of {', '.join(TABLE1_SHARES)} (Table 1's) or a .jsonl file of your own, found "
                f"{split!r}"
            )
    shares_of = {split: shares or TABLE1_SHARES.get(split) or (1.0,) for split in splits or TABLE1_SHARES}
    grids = {
        split: plan_grid(split, of_split, num_seeds, paths.runs / "table1", _changes(split, swin, bert, num_workers))
        for split, of_split in shares_of.items()
    }
    tables, runs, notes, is_whole = [], [], dict[str, None](), True

    def note(text: str) -> None:
        if text not in notes:  # the same is wrong with every seed
            console.print(f"not measured: {text}", soft_wrap=True)
        notes[text] = None

    for split, grid in grids.items():
        missing = what_is_missing(split, paths)
        if missing is not None:
            note(missing)
            is_whole = is_whole and splits is None  # one that the user named
            continue
        try:
            dataset = load_dataset(paths, split, on_progress)
            require_whole(dataset, paths, ("train", *dataset.spec.evaluation))
        except (InputError, StoreError, OSError) as error:
            note(str(error))
            is_whole = False
            continue
        measured: list[Measured] = []
        for group in _groups(grid):
            try:
                for of_run in _measure_group(group, dataset, paths, device, on_progress, log_to):
                    measured.append(of_run)  # one by one: what a later run of the group lacks is no loss of these
            except (InputError, StoreError, OSError) as error:
                note(f"{split} {group[0].config.labeled * 100:g}%: {error}")
                is_whole = False
        if measured:
            tables.append(split_table(split, shares_of[split], measured))
            runs += measured
    if not tables:
        console.print(f"nothing was measured: what is in {paths.reports} stays as it is", soft_wrap=True)
        return False
    for table in tables:
        console.print(as_rich(table))
    paths.reports.mkdir(parents=True, exist_ok=True)
    content = {
        "table1.md": as_markdown(tables, list(notes)),
        "table1.json": json.dumps(as_json(tables, runs, list(notes)), indent=1) + "\n",
    }
    for name, text in content.items():
        replace_text(paths.reports / name, text)
    console.print(f"written: {paths.reports / 'table1.md'}, {paths.reports / 'table1.json'}", soft_wrap=True)
    return is_whole


def _changes(split: str, swin: str | None, bert: str | None, num_workers: int | None) -> dict[str, Any]:
    # The nano model has its own: a run of it is the same whatever the others are made of.
    names = {} if train_recipe(split).model == "nano" else {"swin": swin, "bert": bert}
    return {name: value for name, value in {**names, "num_workers": num_workers}.items() if value is not None}


def _measure_group(
    group: Sequence[GridRun],
    dataset: ReferDataset,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    log_to: Sequence[str],
) -> Iterator[Measured]:
    """Train and score a burn-in, then the runs that start from it."""
    first, *others = group
    for together in ([first], others):
        names = " and ".join(METHODS[run.config.method] for run in together)
        console.print(f"{first.config.split} {first.config.labeled * 100:g}% seed {first.seed}: {names}")
        candidates_of = others[-1].config if together == [first] else None
        failure = None
        try:
            _train_all(together, paths, device, on_progress, log_to, candidates_of)
        except (InputError, StoreError, OSError) as error:
            failure = error
        for run in together:
            if failure is None or RunFolder(run.folder).is_finished:
                yield Measured(seed=run.seed, scores=evaluate_run(run.folder, paths, device, on_progress, dataset))
        if failure is not None:
            raise failure


def _groups(runs: Sequence[GridRun]) -> list[Sequence[GridRun]]:
    """The methods of each share and seed: the burn-in, then those that start from it."""
    num_methods = len(TABLE1_METHODS)
    return [runs[start : start + num_methods] for start in range(0, len(runs), num_methods)]


def _train_all(
    runs: Sequence[GridRun],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    log_to: Sequence[str],
    candidates_of: TrainConfig | None,
) -> None:
    """Train runs that do not need each other, side by side where that is faster; beside a burn-in, which needs none,
    the candidates are made that a run of `candidates_of` will need."""
    runs = [_as_begun(run, device) for run in runs]
    num_unfinished = sum(not RunFolder(run.folder).is_finished for run in runs)
    if candidates_of is not None and num_unfinished and is_worth_it(2, device):
        (run,) = runs
        dataset, _ = prepare(run.config, paths, run.folder, on_progress)
        to_fill = paths.store(run.config.split)
        if lacks_candidates(paths, dataset, to_fill):
            burn_in = Job(config=run.config, folder=run.folder, store=None, burn_in=None, log_to=log_to)
            train_side_by_side([burn_in, CandidatesJob(config=candidates_of, store=to_fill)], paths, on_progress)
            return
    if num_unfinished < 2 or not is_worth_it(len(runs), device):
        for run in runs:
            train(run.config, paths, run.folder, device, on_progress, burn_in=run.burn_in, log_to=log_to)
        return
    jobs = []
    for run in runs:
        _, store = prepare(run.config, paths, run.folder, on_progress, burn_in=run.burn_in)
        jobs.append(Job(config=run.config, folder=run.folder, store=store, burn_in=run.burn_in, log_to=log_to))
    train_side_by_side(jobs, paths, on_progress)


def _as_begun(run: GridRun, device: torch.device) -> GridRun:
    """A run as it was begun, or as the burn-in was that it starts from: the cells of a table differ in nothing else."""
    begun = run.folder if run.burn_in is None or RunFolder(run.folder).is_started else run.burn_in
    return dataclasses.replace(run, config=as_begun(run.config, begun, device))
