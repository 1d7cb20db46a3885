"""Learning curves (the paper's figure 7): val oIoU over the steps of burn-in and mutual learning."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from semires.pipeline.report.content import CellView, ChartView, FigureView, RowView, TableView
from semires.pipeline.report.runs import ReportedRun, best_line
from semires.pipeline.reporting.html.charts import Line, Point, line_chart, tone

BURN_IN_TONE = "tone-burn-in"
MOST_BANDS = 5
"""Of more lines than these the bands would hide each other."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The runs of one row on one data set with one share of labels, a seed each. number: of the row, for its colour."""

    name: str
    number: int
    runs: tuple[ReportedRun, ...]


def learning_curves(groups: Sequence[Group], *, name: str, title: str) -> FigureView | None:
    """The figure of the groups of a table, None where nothing was evaluated yet. name: unlike any other of the page."""
    lines = [*_burn_ins(groups), *(line for group in groups if (line := _line(group)) is not None)]
    has_bands = any(line.band for line in lines) and len(lines) <= MOST_BANDS
    if not has_bands:
        lines = [replace(line, band=()) for line in lines]
    if not lines:
        return None
    ends = sorted({run.burn_in_steps for group in groups for run in group.runs if run.burn_in_steps})
    chart = line_chart(
        lines,
        name=name,
        title=f"Learning curves, {title}",
        description=" ".join(f"{line.name}: {_course(line.points)}." for line in lines),
        x_label="steps",
        y_label="oIoU on val, %",
        marks=[(end, "mutual learning") for end in ends],
        size=(720, 380),
    )
    several = any(line.seeds for line in lines)
    bands = ", bands reach from the lowest to the highest" if has_bands else ""
    return FigureView(
        heading=f"Learning curves: {title}",
        charts=(ChartView(drawn=chart),),
        caption="oIoU on val as it was measured in training, which chooses each run's weights by it: first burn-in on "
        "the labeled images alone, then mutual learning from its best weights on."
        + (f" Bold lines are means over seeds, thin ones a seed each{bands}." if several else ""),
        legend=tuple((line.tone, line.name) for line in lines),
        table=_table(groups, f"{name}-table", title),
        notes=tuple(_notes(groups)),
    )


def mean_line(name: str, tone_class: str, courses: Sequence[Sequence[Point]], *, is_dashed: bool = False) -> Line:
    """The mean of several courses where all of them have a value, each of them behind it where they are several."""
    known = [dict(course) for course in courses]
    steps = sorted(set(known[0]).intersection(*known[1:]))
    values = [(step, [course[step] for course in known]) for step in steps]
    are_several = len(courses) > 1
    return Line(
        name=name,
        tone=tone_class,
        points=tuple((step, statistics.mean(of_step)) for step, of_step in values),
        seeds=tuple(tuple(course) for course in courses) if are_several else (),
        band=tuple((step, min(of_step), max(of_step)) for step, of_step in values) if are_several else (),
        is_dashed=is_dashed,
    )


def _line(group: Group) -> Line | None:
    courses = [course for run in group.runs if (course := _course_of(run))]
    return mean_line(group.name, tone(group.number), courses) if courses else None


def _course_of(run: ReportedRun) -> list[Point]:
    """A run's own steps, from the weights on that it started with."""
    start = best_line(run.burn_in)
    points = [] if start is None or not run.metrics else [(float(run.burn_in_steps), float(start["val"]["oiou"]))]
    return points + _points(run.metrics, run.burn_in_steps, lambda line: line["val"]["oiou"])


def _points(
    metrics: Sequence[Mapping[str, Any]], offset: int, value: Callable[[Mapping[str, Any]], float]
) -> list[Point]:
    return [(float(offset + line["step"]), float(value(line))) for line in metrics]


def _burn_ins(groups: Sequence[Group]) -> list[Line]:
    """The burn-ins that are no runs of the groups themselves: one line of all seeds, or several where groups began with
    others."""
    shown = [run.metrics for group in groups for run in group.runs]  # by what was measured: a run may lie at two places
    found: list[tuple[list[str], dict[int, tuple[Mapping[str, Any], ...]]]] = []  # names of groups, seed -> metrics
    for group in groups:
        of_group = {run.config.seed: run.burn_in for run in group.runs if run.burn_in and run.burn_in not in shown}
        for names, known in found:
            if all(known.get(seed, metrics) == metrics for seed, metrics in of_group.items()):
                names.append(group.name)
                known |= of_group
                break
        else:
            found += [([group.name], of_group)] if of_group else []
    return [
        mean_line(
            "Burn-in" if len(found) == 1 else f"Burn-in of {', '.join(names)}",
            BURN_IN_TONE,
            [_points(metrics, 0, lambda line: line["val"]["oiou"]) for metrics in known.values()],
            is_dashed=bool(number % 2),
        )
        for number, (names, known) in enumerate(found)
    ]


def _course(points: Sequence[Point]) -> str:
    if not points:
        return "no step that all seeds have in common"
    (first, start), (last, end) = points[0], points[-1]
    best_step, best = max(points, key=lambda point: point[1])
    return (
        f"{start:.2f} at step {first:,.0f}, {end:.2f} at step {last:,.0f}, at most {best:.2f} at step {best_step:,.0f}"
    )


def _table(groups: Sequence[Group], name: str, title: str) -> TableView:
    rows = []
    for group in groups:
        for run in group.runs:
            best = run.best
            if best is None:
                continue
            last = run.metrics[-1]
            texts = (
                f"{run.config.seed}",
                f"{best['val']['oiou']:.2f}",
                f"{run.burn_in_steps + best['step']:,}",
                f"{last['val']['oiou']:.2f}",
                f"{run.burn_in_steps + last['step']:,}",
            )
            rows.append(
                RowView(name=group.name, tone=tone(group.number), cells=tuple(CellView(value=text) for text in texts))
            )
    return TableView(
        name=name,
        caption=f"Learning curves in numbers, {title}: oIoU on val, %",
        heading="row",
        columns=("seed", "best", "at step", "last", "at step "),
        rows=tuple(rows),
    )


def _notes(groups: Sequence[Group]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    notes = []
    without = [run for run in runs if run.config.method != "supervised" and not run.burn_in]
    if without:
        places = ", ".join(sorted({str(run.burn_in_folder) for run in without}))
        notes.append(f"The burn-in of {len(without)} runs is not where it was ({places}): their lines begin at step 0.")
    unfinished = [run for run in runs if run.result is None]
    notes += [f"{run.row}, seed {run.config.seed}: not finished, {_progress(run)}." for run in unfinished]
    return notes


def _progress(run: ReportedRun) -> str:
    if not run.metrics:
        return "not evaluated yet"
    last = run.metrics[-1]
    return f"last evaluated at step {last['step']:,} of {last['num_steps']:,}"
