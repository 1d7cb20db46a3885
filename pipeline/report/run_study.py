"""Runs without a study as one: those of equal settings are a row, their seeds beside each other."""

import json
from collections.abc import Sequence

from semires.pipeline.audit.refinements import match_name
from semires.pipeline.recipes import TABLE1_METHODS
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.report.settings import flat
from semires.pipeline.reporting.published import published
from semires.pipeline.reporting.tables import METHODS
from semires.pipeline.study.results import Cell, SplitTable, StudyResult, StudyRun
from semires.stages.train.config import FREE, WHICH_IMAGES, TrainConfig
from semires.stages.train.matching import MatchConfig

_ELSEWHERE = ("split", "seed", *FREE, *WHICH_IMAGES)  # in headings, in columns, or of no matter


def method_name(config: TrainConfig) -> str:
    """A run's method, with what it refines labels by."""
    name = METHODS[config.method]
    if config.is_refined:
        name = f"{name}, {match_name(config.match)}"
    elif config.method in ("semires", "semires-cc"):
        name = f"{name} without refinement"
    return name


def row_names(configs: Sequence[TrainConfig]) -> list[str]:
    """What the rows of runs are called: equal for those that differ in nothing but their seed, data and labeled images.
    Where a method's name is that of several rows, the settings that tell them apart follow it; two runs of one seed are
    two rows."""
    keys = [json.dumps({k: v for k, v in flat(c).items() if k not in _ELSEWHERE}) for c in configs]
    kinds: dict[str, list[str]] = {}
    for config, key in zip(configs, keys, strict=True):
        of_name = kinds.setdefault(method_name(config), [])
        if key not in of_name:
            of_name.append(key)
    names, seen = [], list[tuple[str, str]]()
    for config, key in zip(configs, keys, strict=True):
        name = method_name(config)
        if len(kinds[name]) > 1:
            settings = [json.loads(of_kind) for of_kind in kinds[name]]
            own = json.loads(key)
            differing = [k for k in own if any(other.get(k) != own[k] for other in settings)]
            name = f"{name} ({', '.join(f'{k} {own[k]}' for k in differing)})"
        cell = (name, json.dumps({k: v for k, v in flat(config).items() if k in ("split", "seed", *WHICH_IMAGES)}))
        seen.append(cell)
        num_seen = seen.count(cell)
        names.append(name if num_seen == 1 else f"{name}, again ({num_seen})")
    return names


def as_study(runs: Sequence[ReportedRun]) -> StudyResult:
    """The tables of runs, those that are not scored among what is not measured. A column is a share of labels and an
    evaluation split."""
    order = {METHODS[method]: number for number, method in enumerate(TABLE1_METHODS)}
    rows = sorted(dict.fromkeys(run.row for run in runs), key=lambda row: order[_method_of(row, runs)])
    scored = [run for run in runs if run.scores is not None]
    return StudyResult(
        name="runs",
        title="Runs",
        table="Table 1",
        tables=tuple(
            _table(split, rows, [run for run in scored if run.config.split == split])
            for split in dict.fromkeys(run.config.split for run in scored)
        ),
        runs=tuple(
            StudyRun(
                row=run.row,
                split=run.config.split,
                share=run.config.labeled,
                seed=run.config.seed,
                folder=run.folder,
                burn_in=run.burn_in_folder,
                scores=run.scores,
            )
            for run in runs
            if run.scores is not None
        ),
    )


def _method_of(row: str, runs: Sequence[ReportedRun]) -> str:
    return METHODS[next(run.config.method for run in runs if run.row == row)]


def _table(split: str, rows: Sequence[str], runs: Sequence[ReportedRun]) -> SplitTable:
    by_split = [run.scores.by_split for run in runs if run.scores is not None]
    evaluation = list(dict.fromkeys(name for of_run in by_split for name in of_run))
    shares = list(dict.fromkeys(run.share for run in sorted(runs, key=lambda run: run.config.labeled)))
    columns = [(share, name) for share in shares for name in evaluation]
    dropped = max((run.scores.dropped_refs or 0 for run in runs if run.scores is not None), default=0)
    return SplitTable(
        split=split,
        columns=tuple(f"{share} {name}" for share, name in columns),
        rows={
            row: tuple(
                _cell([run for run in runs if (run.row, run.share) == (row, share)], name) for share, name in columns
            )
            for row in rows
            if any(run.row == row for run in runs)
        },
        against=None,
        gains={},
        remarks=(f"Without {dropped} refs of the data set that were dropped on loading",) if dropped else (),
    )


def _cell(runs: Sequence[ReportedRun], split: str) -> Cell:
    found = [
        run.scores.by_split[split]
        for run in sorted(runs, key=lambda run: run.config.seed)
        if run.scores is not None and split in run.scores.by_split
    ]
    # Of several runs an interval would need every expression's counts: the deviation over seeds stands for it.
    interval = found[0].get("intervals", {}).get("oiou") if len(found) == 1 else None
    return Cell(
        measured=tuple(values["oiou"] for values in found),
        interval=None if interval is None else (interval[0], interval[1]),
        published=_published(runs[0].config, split) if runs else None,
    )


def _published(config: TrainConfig, split: str) -> float | None:
    """Table 1's number, of runs that are what it is of."""
    is_theirs = config.model == "base" and config.labeled_list is None and config.labeled_seed == 0
    if not is_theirs or (config.method == "semires" and method_name(config) != f"SemiRES, {match_name(MatchConfig())}"):
        return None
    return published("Table 1", config.split, METHODS[config.method], config.labeled, split)
