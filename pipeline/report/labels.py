"""Label quality over mutual learning, and what refinement makes of labels (the paper's figure 6), as training counted
it."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from semires.pipeline.report.content import CellView, ChartView, FigureView, RowView, TableView
from semires.pipeline.report.curves import Group, mean_line
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.reporting.html.charts import Bar, Kind, Line, Point, bar_chart, line_chart, shares_said, tone

KINDS: tuple[Kind, ...] = ("positive", "negative", "none")
SMALL = (340, 220)
NAMES = (
    ("label_iou_before", "IoU before"),
    ("label_iou_after", "IoU after"),
    ("matched", "matched"),
    ("improved", "better"),
    ("worsened", "worse"),
)


def label_quality(groups: Sequence[Group], *, name: str, title: str) -> FigureView | None:
    """IoU of pseudo-labels with the hidden masks over the steps, a chart a row; None where nobody measured it."""
    measured = [(group, runs) for group in groups if (runs := _with(group.runs, "label_iou_before"))]
    if not measured:
        return None
    lines = [_lines_of(group, runs) for group, runs in measured]
    heights = [y for of_group in lines for line in of_group for _, y in line.points]
    charts = [
        ChartView(
            heading=group.name,
            drawn=line_chart(
                of_group,
                name=f"{name}-{number}",
                title=f"{group.name}: IoU of pseudo-labels with the hidden masks",
                description=_said(group, runs),
                x_label="steps of mutual learning",
                y_label="IoU",
                y_range=(min(heights), max(heights)),
                size=SMALL,
            ),
        )
        for number, ((group, runs), of_group) in enumerate(zip(measured, lines, strict=True))
    ]
    return FigureView(
        heading=f"Label quality over time: {title}",
        charts=tuple(charts),
        caption="Mean IoU of the teacher's labels with the hidden masks, before refinement (dashed) and after it, of "
        "the labels since the evaluation before. A method that refines nothing has no line after.",
        table=_table(measured, f"{name}-table", title),
    )


def refinement_outcomes(groups: Sequence[Group], *, name: str, title: str) -> FigureView | None:
    """Shares of labels that refinement made better, worse or left, over all of mutual learning; None where no run
    refined any whose mask is known."""
    measured = [(group, runs) for group in groups if _is_refined(group) and (runs := _with(group.runs, "improved"))]
    if not measured:
        return None
    bars = []
    for group, runs in measured:
        better, worse = (_mean(runs, key) for key in ("improved", "worsened"))
        bars.append(
            Bar(name=group.name, shares={"positive": better, "negative": worse, "none": max(0.0, 1 - better - worse)})
        )
    return outcome_figure(
        bars,
        name=name,
        what="What refinement makes of labels",
        title=title,
        caption="Share of pseudo-labels whose IoU with the hidden mask refinement made higher (positive), lower "
        "(negative) or left as it was (none), as the runs counted them over all of mutual learning.",
        table=TableView(
            name=f"{name}-table",
            caption=f"What refinement makes of labels, {title}: per cent of them",
            heading="row",
            columns=KINDS,
            rows=tuple(
                RowView(
                    name=bar.name,
                    tone=tone(group.number),
                    cells=tuple(CellView(value=f"{100 * share:.1f}") for share in bar.shares.values()),
                )
                for bar, (group, _) in zip(bars, measured, strict=True)
            ),
        ),
    )


def outcome_figure(
    bars: Sequence[Bar], *, name: str, what: str, title: str, caption: str, table: TableView
) -> FigureView:
    """The figure of shares of labels that refinement made better, worse, or neither. name: unlike any other of the
    page; title: what the labels are of."""
    chart = bar_chart(bars, name=name, title=f"{what}, {title}", description=shares_said(bars))
    return FigureView(
        heading=f"{what}: {title}",
        charts=(ChartView(drawn=chart),),
        caption=caption,
        legend=tuple((kind, kind) for kind in KINDS),
        table=table,
    )


def _lines_of(group: Group, runs: Sequence[ReportedRun]) -> list[Line]:
    before = [_course(run, "label_iou_before") for run in runs]
    lines = [mean_line("before", "tone-burn-in", before, is_dashed=True)]
    if _is_refined(group):
        lines.append(mean_line("after", tone(group.number), [_course(run, "label_iou_after") for run in runs]))
    return lines


def _is_refined(group: Group) -> bool:
    return any(run.config.is_refined for run in group.runs)


def _with(runs: Sequence[ReportedRun], key: str) -> list[ReportedRun]:
    return [run for run in runs if _lines(run, key)]


def _lines(run: ReportedRun, key: str) -> list[Mapping[str, Any]]:
    return [line for line in run.metrics if key in line]


def _course(run: ReportedRun, key: str) -> list[Point]:
    return [(float(line["step"]), float(line[key])) for line in _lines(run, key)]


def _mean(runs: Sequence[ReportedRun], key: str) -> float:
    """The mean over runs of their means over evaluations, which lie evenly."""
    return statistics.mean(statistics.mean(value for _, value in _course(run, key)) for run in runs)


def _said(group: Group, runs: Sequence[ReportedRun]) -> str:
    keys = [("label_iou_before", "before")] + ([("label_iou_after", "after")] if _is_refined(group) else [])
    said = [
        f"{what} refinement {_ends(runs, key)[0]:.2f} at the first evaluation and {_ends(runs, key)[1]:.2f} at the last"
        for key, what in keys
    ]
    return f"{'; '.join(said)}; mean over {len(runs)} runs."


def _ends(runs: Sequence[ReportedRun], key: str) -> tuple[float, float]:
    courses = [_course(run, key) for run in runs]
    return statistics.mean(course[0][1] for course in courses), statistics.mean(course[-1][1] for course in courses)


def _table(measured: Sequence[tuple[Group, Sequence[ReportedRun]]], name: str, title: str) -> TableView:
    rows = []
    for group, runs in measured:
        cells = []
        for key, _ in NAMES:
            of_key = _with(runs, key) if key == "label_iou_before" or _is_refined(group) else []
            if of_key:
                first, last = _ends(of_key, key)
                cells.append(CellView(value=f"{first:.2f} → {last:.2f}"))
            else:
                cells.append(CellView(value="–"))
        rows.append(RowView(name=group.name, tone=tone(group.number), cells=tuple(cells)))
    return TableView(
        name=name,
        caption=f"Label quality in numbers, {title}: from the first evaluation to the last; matched, better and worse "
        "are shares of the labels",
        heading="row",
        columns=tuple(what for _, what in NAMES),
        rows=tuple(rows),
    )
