"""A study's tables as the page has them: measured beside published, gains, and both as intervals."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from semires.pipeline.report.content import CellView, ChartView, FigureView, RowView, TableView
from semires.pipeline.reporting.html.charts import Interval, interval_chart, tone
from semires.pipeline.reporting.tables import plain_title, title_of
from semires.pipeline.study.results import Cell, Gain, SplitTable

PAPERS_DATA = ("refcoco", "refcoco+", "refcocog")
"""Data sets that the paper has numbers of."""


def score_table(table: SplitTable, *, name: str, all_rows: Sequence[str] = ()) -> TableView:
    """The table of scores. name: unlike any other of the page. all_rows: of the study, by whose places rows have their
    colours, as in its other tables and charts; () for those of the table."""
    reference = table.reference
    cells = {
        row: (
            *(_cell(cell, table.split) for cell in of_row),
            *_reference(table, None if reference is None else reference.rows[row], "{:.2f}"),
        )
        for row, of_row in table.rows.items()
    }
    return _view(table, f"oIoU in per cent{_what_cells_say(table)}", cells, name, all_rows)


def gain_table(table: SplitTable, *, name: str, all_rows: Sequence[str] = ()) -> TableView | None:
    """The table of gains, None where the study asks for none. name, all_rows: as of `score_table`."""
    if not table.gains:
        return None
    cells = {
        row: (
            *(_gain(gain, table.split) for gain in of_row),
            *_reference(table, reference_gain(table, row), "{:+.2f}"),
        )
        for row, of_row in table.gains.items()
        if row != table.against
    }
    what = f"points of oIoU above {table.against}, pairs of runs with one seed"
    return _view(table, what, cells, name, all_rows)


def _view(
    table: SplitTable, what: str, cells: Mapping[str, tuple[CellView, ...]], name: str, all_rows: Sequence[str]
) -> TableView:
    places = list(all_rows or table.rows)
    return TableView(
        name=name,
        caption=f"{title_of(table.split)}: {what}",
        heading="row",
        columns=_columns(table),
        rows=tuple(RowView(name=row, tone=tone(places.index(row)), cells=of_row) for row, of_row in cells.items()),
    )


def interval_figure(table: SplitTable, *, name: str, all_rows: Sequence[str] = ()) -> FigureView | None:
    """The gains, or where there are none the scores, of the first evaluation split as intervals, a chart a column; None
    where nothing was measured. name, all_rows: as of `score_table`."""
    places = list(all_rows or table.rows)
    charts, has_published = [], False
    columns = first_split_columns(table.columns)
    for column in columns:
        gains = _gains(table, column, places)
        rows = gains or _scores(table, column, places)
        if not rows:
            continue
        is_gain = bool(gains)
        what = f"points of oIoU above {table.against}" if is_gain else "oIoU, %"
        has_published = has_published or any(row.published is not None for row in rows)
        chart = interval_chart(
            rows,
            name=f"{name}-{column}",
            title=f"{title_of(table.split)}, {table.columns[column]}: {what}",
            description=" ".join(_said(row) for row in rows),
            x_label=what,
            has_zero=is_gain,
            width=480 if len(columns) == 1 else 340,
        )
        charts.append(ChartView(heading=table.columns[column], drawn=chart))
    if not charts:
        return None
    diamonds = f" Open diamonds: {published_name(table.split)}." if has_published else ""
    return FigureView(
        heading=f"At a glance: {plain_title(table.split)}",
        charts=tuple(charts),
        caption=f"Points are measured, means over seeds; lines hold 95% of a bootstrap.{diamonds}",
    )


def first_split_columns(columns: Sequence[str]) -> list[int]:
    """Which columns ("5% val", "val smallest 5%") are of the evaluation split that the first one is of."""
    splits = [next((word for word in column.split() if not word.endswith("%")), column) for column in columns]
    return [number for number, split in enumerate(splits) if split == splits[0]]


def published_name(split: str) -> str:
    """Whose a published number beside one of `split` is; no other data set's passes for this one's."""
    return "the paper's number" if split in PAPERS_DATA else "the paper's number on RefCOCO"


def reference_gain(table: SplitTable, row: str) -> float | None:
    """The paper's gain on the other data set that stands beside the table; None where there is none."""
    if table.reference is None or table.against is None:
        return None
    ours, theirs = table.reference.rows[row], table.reference.rows[table.against]
    return None if ours is None or theirs is None else ours - theirs


def _columns(table: SplitTable) -> tuple[str, ...]:
    return table.columns if table.reference is None else (*table.columns, table.reference.title)


def _reference(table: SplitTable, value: float | None, form: str) -> tuple[CellView, ...]:
    if table.reference is None:
        return ()
    return (CellView(value="–" if value is None else form.format(value), is_measured=False),)


def _what_cells_say(table: SplitTable) -> str:
    cells = [cell for row in table.rows.values() for cell in row]
    parts = []
    if any(len(cell.measured) > 1 for cell in cells):
        parts.append("mean and standard deviation over seeds")
    if any(cell.interval is not None for cell in cells):
        parts.append("the interval that holds 95%")
    if any(cell.published is not None for cell in cells):
        parts.append(published_name(table.split))
    return f"; {', '.join(parts)}" if parts else ""


def _cell(cell: Cell, split: str) -> CellView:
    many = len(cell.measured) > 1
    return CellView(
        value=f"{statistics.mean(cell.measured):.2f}" if cell.measured else "–",
        spread=f"± {statistics.stdev(cell.measured):.2f}" if many else "",
        interval="" if cell.interval is None else "{:.1f}–{:.1f}".format(*cell.interval),
        published=_published(cell.published, split, "{:.2f}"),
    )


def _gain(gain: Gain, split: str) -> CellView:
    return CellView(
        value="–" if gain.mean is None else f"{gain.mean:+.2f}",
        interval="" if gain.interval is None else "{:+.1f} to {:+.1f}".format(*gain.interval),
        published=_published(gain.published, split, "{:+.2f}"),
    )


def _published(value: float | None, split: str, form: str) -> str:
    if value is None:
        return ""
    return f"paper{'' if split in PAPERS_DATA else ', RefCOCO:'} {form.format(value)}"


def _gains(table: SplitTable, column: int, places: Sequence[str]) -> list[Interval]:
    return [
        _interval(row, places.index(row), gains[column].mean, gains[column])
        for row, gains in table.gains.items()
        if gains[column].mean is not None and row != table.against
    ]


def _scores(table: SplitTable, column: int, places: Sequence[str]) -> list[Interval]:
    return [
        _interval(row, places.index(row), statistics.mean(cells[column].measured), cells[column])
        for row, cells in table.rows.items()
        if cells[column].measured
    ]


def _interval(row: str, number: int, value: Any, of: Cell | Gain) -> Interval:
    return Interval(name=row, tone=tone(number), value=value, interval=of.interval, published=of.published)


def _said(row: Interval) -> str:
    interval = "" if row.interval is None else " (95%: {:.2f} to {:.2f})".format(*row.interval)
    published = "" if row.published is None else f", published {row.published:.2f}"
    return f"{row.name}: {row.value:.2f}{interval}{published}."
