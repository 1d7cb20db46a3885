"""Runs without a study as one: those of equal settings are a row, their seeds beside each other."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from semires.pipeline.audit.refinements import match_name
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.recipes import train_recipe
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.report.settings import flat
from semires.pipeline.reporting.tables import METHODS, plain_title
from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.scoring.kept import kept_file, read_kept
from semires.pipeline.scoring.measuring import measure_target
from semires.pipeline.scoring.scores import counts_by_part, kept_scores, run_scores
from semires.pipeline.scoring.targets import choose_target
from semires.pipeline.study.description import Row, Study
from semires.pipeline.study.gathering import ScoredRun, split_table
from semires.pipeline.study.results import StudyResult, StudyRun
from semires.stages.train.config import FREE, TrainConfig
from semires.stages.train.matching import MatchConfig

NAME = "runs"
_ELSEWHERE = ("split", "seed", "labeled", *FREE)  # in headings, in columns, or of no matter


def method_name(config: TrainConfig) -> str:
    """A run's method, with what it refines labels by, and the list of its labeled images where there is one."""
    name = METHODS[config.method]
    if config.is_refined:
        name = f"{name}, {match_name(config.match)}"
    elif config.method in ("semires", "semires-cc"):
        name = f"{name} without refinement"
    return name if config.labeled_list is None else f"{name}, {config.labeled_name}"


def row_names(configs: Sequence[TrainConfig]) -> list[str]:
    """What the rows of runs are called: equal for those that differ in nothing but seed, data set and share of labels.
    Of several rows of one method all but the recipe's own say which settings tell them apart. Two runs that differ in
    nothing that is computed are two rows."""
    keys = [_key(config) for config in configs]
    names: list[str] = []
    for number, (config, key) in enumerate(zip(configs, keys, strict=True)):
        name = method_name(config)
        alike = [other for at, other in enumerate(keys) if method_name(configs[at]) == name and other != key]
        recipe = flat(train_recipe(config.split))
        differing = [
            setting
            for setting, value in key.items()
            if any(other.get(setting) != value for other in alike) and value != recipe[setting]
        ]
        if differing:
            name = f"{name} ({', '.join(f'{setting} {key[setting]}' for setting in differing)})"
        num_before = sum(_computed(other) == _computed(config) for other in configs[:number])
        names.append(f"{name}, again" + (f" ({num_before})" if num_before > 1 else "") if num_before else name)
    return names


def _computed(config: TrainConfig) -> dict[str, str]:
    return {setting: value for setting, value in flat(config).items() if setting not in FREE}


def _key(config: TrainConfig) -> dict[str, str]:
    return {setting: value for setting, value in flat(config).items() if setting not in _ELSEWHERE}


def scored(run: ReportedRun, paths: Paths, device: torch.device, on_progress: OnProgress) -> ScoredRun:
    """A finished run with its scores and their counts, which are measured where they are not kept; where they are, no
    data is needed. InputError, StoreError and OSError where they cannot be measured."""
    scores, counts = kept_scores(run.folder), _kept_counts(run.folder)
    if scores is None or not scores.by_split.keys() <= counts.keys():
        measured = measure_target(choose_target(run.folder, paths, on_progress), device, on_progress)
        scores, counts = run_scores(measured), counts_by_part(measured)
    found = StudyRun(
        row=run.row,
        split=run.config.split,
        share=run.config.labeled,
        seed=run.config.seed,
        folder=run.folder,
        burn_in=run.burn_in_folder,
        scores=scores,
    )
    return ScoredRun(run=found, counts={split: counts[split] for split in scores.by_split})


def _kept_counts(folder: Path) -> dict[str, PixelCounts]:
    kept = read_kept(kept_file(folder, "counts", ".npz", None)) or {}
    return {split: of_split.counts.pixels for split, of_split in kept.items()}


def as_study(runs: Sequence[ReportedRun], found: Sequence[ScoredRun]) -> StudyResult:
    """The tables of runs, one a data set, and one for runs whose labeled images a list names: no share is theirs; gains
    are over supervised runs where there are some. found: those of the runs with scores. What cannot stand beside the
    others is among what is not measured."""
    configs = {run.folder: run.config for run in runs}
    methods = list(METHODS)
    in_order = sorted(runs, key=lambda run: (methods.index(run.config.method), run.row != method_name(run.config)))
    tables, shown, not_measured = [], list[ScoredRun](), list[str]()
    kinds = [(of_run.run.split, configs[of_run.run.folder].labeled_list is not None) for of_run in found]
    for split, is_listed in dict.fromkeys(kinds):
        of_split = [of_run for of_run, kind in zip(found, kinds, strict=True) if kind == (split, is_listed)]
        alike = [of_run for of_run in of_split if _are_of_one_data(of_run, of_split[0])]
        not_measured += [
            f"{of_run.run.folder}: its scores are of other expressions than those of {of_split[0].run.folder}: run "
            "`semires evaluate` on both"
            for of_run in of_split
            if of_run not in alike
        ]
        names = {of_run.run.row for of_run in alike}
        rows = {run.row: run.config for run in in_order if run.config.split == split and run.row in names}
        shares = tuple(sorted({of_run.run.share for of_run in alike}))
        of_rows = dict.fromkeys(rows, shares)
        if is_listed:  # what their settings say of a share decides nothing
            of_rows = {of_run.run.row: (of_run.run.share,) for of_run in alike}
        supervised = [
            row for row, config in rows.items() if config.method == "supervised" and row == method_name(config)
        ]
        study = Study(
            name=NAME,
            title=NAME,
            splits=(split,),
            rows=tuple(Row(name=row, published=_published(config)) for row, config in rows.items()),
            shares={} if is_listed else {split: shares},
            table="Table 1",
            against=supervised[0] if len(supervised) == 1 else None,
        )
        tables.append(split_table(study, split, of_rows, alike))
        shown += alike
    return StudyResult(
        name=NAME,
        title=f"Runs on {' and '.join(dict.fromkeys(plain_title(run.config.split) for run in runs))}",
        table="Table 1",
        tables=tuple(tables),
        runs=tuple(of_run.run for of_run in shown),
        not_measured=tuple(not_measured),
    )


def _are_of_one_data(one: ScoredRun, other: ScoredRun) -> bool:
    common = one.counts.keys() & other.counts.keys()
    return all(np.array_equal(one.counts[name].image_ids, other.counts[name].image_ids) for name in common)


def _published(config: TrainConfig) -> str | None:
    """The row of Table 1 that a run is of; on RefShapes it stands beside RefCOCO's numbers, named so."""
    has_their_views = config.views == train_recipe(config.split).views
    is_their_method = {
        "supervised": True,
        "baseline": has_their_views and not config.confidence_filter,
        "semires": has_their_views and config.is_refined and config.is_weighted and config.match == MatchConfig(),
        "semires-cc": False,
    }[config.method]
    is_theirs = config.model == ("nano" if config.split == "refshapes" else "base") and config.labeled_list is None
    return METHODS[config.method] if is_their_method and is_theirs else None
