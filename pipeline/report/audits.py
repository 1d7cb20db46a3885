"""What `semires study figure6` kept of runs: outcomes of refinement on all unlabeled refs, and by size of object."""

import json
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from semires.pipeline.audit.figure6 import paper_counts
from semires.pipeline.report.content import CellView, FigureView, RowView, TableView
from semires.pipeline.report.curves import Group
from semires.pipeline.report.labels import KINDS, outcome_figure
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.reporting.html.charts import Bar, tone
from semires.stages.data.errors import InputError
from semires.stages.train.run_folder import RunFolder

TEACHERS = {"burn-in": "burn-in's model", "final": "best model"}

Counts = Mapping[str, Mapping[str, float]]  # group of refs -> what was counted of them


def audit_outcomes(groups: Sequence[Group], *, name: str, title: str) -> FigureView | None:
    """Outcomes of the runs whose audits are kept, means over seeds, and a table of them by size; None where none is."""
    found = [
        (group, teacher, readings)
        for group in groups
        for teacher in TEACHERS
        if (readings := [reading for run in group.runs if (reading := kept_reading(run, teacher)) is not None])
    ]
    if not found:
        return None
    bars = [
        Bar(
            name=f"{group.name}, {TEACHERS[teacher]}",
            shares={kind: _share(readings, "all", kind) or 0.0 for kind in KINDS},
        )
        for group, teacher, readings in found
    ]
    configs = [group.runs[0].config for group, _, _ in found]
    of_papers = paper_counts((config.split, config.match.strategy) for config in configs)
    bars += [
        Bar(
            name=f"{of_paper}, {strategy.upper()}",
            shares={kind: count / sum(counts) for kind, count in zip(KINDS, counts, strict=True)},
        )
        for (of_paper, strategy), counts in of_papers.items()
    ]
    return outcome_figure(
        bars,
        name=name,
        what="What refinement makes of all unlabeled refs",
        title=title,
        caption="Labels whose IoU with the hidden mask refinement made higher (positive), lower (negative), and all "
        "others (none). The model that mutual learning began with and the run's best read each unlabeled ref once. "
        "The paper's counts, as shares of its unlabeled refs, are of training.",
        table=_by_size(found, f"{name}-table", title),
    )


def kept_reading(run: ReportedRun, teacher: str) -> Counts | None:
    """What is kept of a run and one teacher; None where it is not, or is not of the run's weights. InputError for a
    file that holds something else."""
    path = run.folder / "audit.json"
    if not path.is_file():
        return None
    try:
        readings: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["audit"]["readings"]
        of_teachers = {reading["teacher"]: reading for reading in readings}
        if of_teachers["final"]["weights_sha256"] != RunFolder(run.folder).best_sha256():
            return None
        return None if teacher not in of_teachers else of_teachers[teacher]["by_group"]
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"expected what `semires study figure6` keeps, found others in {path}: remove it") from error


def _by_size(found: Sequence[tuple[Group, str, Sequence[Counts]]], name: str, title: str) -> TableView:
    columns = list(dict.fromkeys(column for _, _, readings in found for reading in readings for column in reading))
    return TableView(
        name=name,
        caption=f"By size and kind of object, {title}: share of labels that a candidate refined; below it those made "
        "positive / negative / none, and mean IoU before → after; all in per cent",
        heading="row",
        columns=tuple(columns),
        rows=tuple(
            RowView(
                name=f"{group.name}, {TEACHERS[teacher]}",
                tone=tone(group.number),
                cells=tuple(_cell(readings, column) for column in columns),
            )
            for group, teacher, readings in found
        ),
    )


def _cell(readings: Sequence[Counts], column: str) -> CellView:
    matched = _share(readings, column, "matched")
    if matched is None:
        return CellView(value="–")
    before, after = (
        statistics.mean(reading[column][key] for reading in readings if column in reading)
        for key in ("iou_before", "iou_after")
    )
    kinds = " / ".join(f"{100 * (_share(readings, column, kind) or 0.0):.1f}" for kind in KINDS)
    return CellView(value=f"{100 * matched:.0f}%", spread=kinds, interval=f"{before:.1f} → {after:.1f}")


def _share(readings: Sequence[Counts], column: str, key: str) -> float | None:
    shares = [reading[column][key] / reading[column]["num_refs"] for reading in readings if column in reading]
    return statistics.mean(shares) if shares else None
