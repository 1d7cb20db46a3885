"""What was found, in plain sentences made of the tables' numbers."""

import statistics
from collections.abc import Sequence

from semires.pipeline.report.tables import first_split_columns, published_name
from semires.pipeline.reporting.tables import plain_title
from semires.pipeline.study.results import Gain, SplitTable, StudyResult

MOST_ROWS = 3
"""Of more rows than these only the one with the highest and the one with the lowest gain are told."""
MOST_COLUMNS = 4
"""So many shares of a table are told."""


def summary(results: Sequence[StudyResult]) -> tuple[str, ...]:
    """Sentences on each table's first evaluation split at each share; none on what was not measured."""
    return tuple(sentence for result in results for table in result.tables for sentence in _of_table(table))


def _of_table(table: SplitTable) -> list[str]:
    columns = first_split_columns(table.columns)
    told = [sentence for column in columns[:MOST_COLUMNS] for sentence in _gains(table, column) or _best(table, column)]
    others = ", ".join(table.columns[column] for column in columns[MOST_COLUMNS:])
    return told + ([f"{plain_title(table.split)}: {others} are in the table below."] if told and others else [])


def _gains(table: SplitTable, column: int) -> list[str]:
    known = [
        (row, gains[column])
        for row, gains in table.gains.items()
        if row != table.against and gains[column].mean is not None
    ]
    known.sort(key=lambda found: -(found[1].mean or 0.0))
    if len(known) <= MOST_ROWS:
        return [_gain(table, column, row, gain) for row, gain in known]
    places = (known[0], f", the highest of {len(known)} rows"), (known[-1], ", the lowest")
    return [_gain(table, column, row, gain, place) for (row, gain), place in places]


def _gain(table: SplitTable, column: int, row: str, gain: Gain, place: str = "") -> str:
    assert gain.mean is not None
    where = f"{plain_title(table.split)}, {table.columns[column]}"
    interval, verdict = "", ""
    if gain.interval is not None:
        low, high = gain.interval
        interval = f" (95%: {low:+.2f} to {high:+.2f})"
        verdict = "; the interval holds 0, so the two are not told apart" if low <= 0 <= high else ""
    side = "above" if round(gain.mean, 2) >= 0 else "below"
    published = "" if gain.published is None else f"; {published_name(table.split)}: {gain.published:+.2f}"
    return f"{where}: {row} is {abs(gain.mean):.2f} points {side} {table.against}{interval}{place}{verdict}{published}."


def _best(table: SplitTable, column: int) -> list[str]:
    means = {
        row: statistics.mean(cells[column].measured) for row, cells in table.rows.items() if cells[column].measured
    }
    if not means:
        return []
    best = max(means, key=lambda row: means[row])
    where = f"{plain_title(table.split)}, {table.columns[column]}"
    cell = table.rows[best][column]
    interval = "" if cell.interval is None else " (95%: {:.2f} to {:.2f})".format(*cell.interval)
    published = "" if cell.published is None else f"; {published_name(table.split)}: {cell.published:.2f}"
    among = f"the highest of {len(means)} rows" if len(means) > 1 else "the only row"
    return [f"{where}: {best} has {means[best]:.2f}% oIoU{interval}, {among}{published}."]
