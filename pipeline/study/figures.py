"""What a study shows beside its scores: what refinement does to labels (figure 6), learning curves (figure 7)."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from rich.table import Table

from semires.pipeline.audit.figure6 import figure6, figure6_tables
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.tables import title_of
from semires.pipeline.study.description import Study
from semires.pipeline.study.results import StudyResult, StudyRun
from semires.stages.train.run_folder import RunFolder

MOST_POINTS = 5
"""Evaluations of a phase that are columns of a table; of more the first, the last, and some between."""


def figure_tables(
    study: Study, result: StudyResult, paths: Paths, device: torch.device, on_progress: OnProgress
) -> tuple[list[Table], dict[str, Any], tuple[str, ...]]:
    """Tables for a terminal, all of their numbers by name for JSON, and what a reader must know, a line each; nothing
    of a study that shows scores alone."""
    if study.shows == "labels":
        found = figure6([run.folder for run in result.runs], paths, device, on_progress)
        return figure6_tables(found), {"labels": [audit.to_dict() for audit in found.audits]}, found.notes
    if study.shows == "curves":
        of_splits = {table.split: [run for run in result.runs if run.split == table.split] for table in result.tables}
        drawn = [_curves(split, runs) for split, runs in of_splits.items()]
        return drawn, {"curves": [_course(run) for run in result.runs]}, ()
    return [], {}, ()


def _course(run: StudyRun) -> dict[str, Any]:
    """oIoU on val of a run's evaluations, those of its burn-in before those of mutual learning."""
    phases = [("burn-in", run.burn_in or run.folder)] + ([] if run.burn_in is None else [("mutual", run.folder)])
    return {
        "row": run.row,
        "split": run.split,
        "share": run.share,
        "seed": run.seed,
        **{
            phase: [[line["step"], line["val"]["oiou"]] for line in RunFolder(folder).read_metrics()]
            for phase, folder in phases
        },
    }


def _curves(split: str, runs: Sequence[StudyRun]) -> Table:
    """A row a row of the study and share, the mean over seeds at some evaluations."""
    courses: dict[tuple[str, float], list[dict[str, Any]]] = {}
    for run in runs:
        courses.setdefault((run.row, run.share), []).append(_course(run))
    columns = []
    for phase in ("burn-in", "mutual"):
        steps = sorted({step for found in courses.values() for course in found for step, _ in course.get(phase, ())})
        columns += [(phase, step) for step in _some(steps)]
    drawn = Table(title=f"{title_of(split)}, oIoU % on val after so many steps", title_justify="left")
    drawn.add_column("", no_wrap=True)
    for phase, step in columns:
        drawn.add_column(f"{phase} {step}", justify="right")
    several = len({share for _, share in courses}) > 1
    for (row, share), found in courses.items():
        cells = []
        for phase, step in columns:
            values = [value for course in found for at, value in course.get(phase, ()) if at == step]
            cells.append(f"{statistics.mean(values):.2f}" if values else "–")
        drawn.add_row(f"{row} {100 * share:g}%" if several else row, *cells)
    return drawn


def _some(steps: Sequence[int]) -> list[int]:
    if len(steps) <= MOST_POINTS:
        return list(steps)
    return [steps[round(number * (len(steps) - 1) / (MOST_POINTS - 1))] for number in range(MOST_POINTS)]
