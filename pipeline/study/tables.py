"""A study's tables: on the terminal and as Markdown."""

import io
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from semires.pipeline.reporting.tables import title_of
from semires.pipeline.study.results import SplitTable, StudyResult


def as_rich(result: StudyResult) -> list[Table]:
    """The tables for a terminal: scores, then gains over the study's row `against` where it has one."""
    drawn = []
    for table in result.tables:
        remarks = "\n".join(table.remarks) or None
        tables = [_drawn(f"{title_of(table.split)}, oIoU %", *_scores(table))]
        if table.gains:
            tables.append(_drawn(f"{title_of(table.split)}, points above {table.against} (95%)", *_gains(table)))
        tables[-1].caption, tables[-1].caption_justify = remarks, "left"
        drawn += tables
    return drawn


def as_markdown(result: StudyResult, figures: Sequence[Table] = (), notes: Sequence[str] = ()) -> str:
    """All tables with what is missing, as a Markdown page; after the scores the tables of `figures` as the terminal has
    them, and notes on them."""
    lines = [f"# {_escaped(result.title)}", "", "Overall IoU in per cent; in parentheses the paper's number."]
    for table in result.tables:
        lines += ["", f"## {_escaped(title_of(table.split))}", "", *_markdown(*_scores(table))]
        if table.gains:
            about = (
                f"Points above {table.against}, with the interval that holds 95%; in brackets the paper's difference:"
            )
            lines += ["", _escaped(about), "", *_markdown(*_gains(table))]
        for remark in table.remarks:
            lines += ["", f"{_escaped(remark)}."]
    for figure in figures:
        lines += ["", "```text", *_as_text(figure), "```"]
    lines += ["", *(f"- {_escaped(note)}" for note in notes)] if notes else []
    if result.not_measured:
        lines += ["", "## Not measured", "", *[f"- {_escaped(note)}" for note in result.not_measured]]
    return "\n".join(lines) + "\n"


def _as_text(table: Table) -> list[str]:
    console = Console(width=200, markup=False, emoji=False, highlight=False, file=io.StringIO())
    with console.capture() as captured:
        console.print(table)
    return [line.rstrip() for line in captured.get().splitlines()]


def _scores(table: SplitTable) -> tuple[list[str], list[list[str]]]:
    header, rows = ["", *table.columns], []
    for name, cells in table.rows.items():
        rows.append([name, *map(str, cells)])
        if table.reference is not None:
            rows[-1].append(_number(table.reference.rows[name], ""))
    return [*header, *([] if table.reference is None else [table.reference.title])], rows


def _gains(table: SplitTable) -> tuple[list[str], list[list[str]]]:
    reference, rows = table.reference, []
    for name, gains in table.gains.items():
        rows.append([name, *map(str, gains)])
        if reference is not None:
            ours, theirs = reference.rows[name], reference.rows[str(table.against)]
            rows[-1].append(_number(None if ours is None or theirs is None else ours - theirs, "+"))
    return ["", *table.columns, *([] if reference is None else [reference.title])], rows


def _number(value: float | None, sign: str) -> str:
    return "–" if value is None else f"{value:{sign}.2f}"


def _drawn(title: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    drawn = Table(title=title, title_justify="left")
    for number, column in enumerate(header):
        drawn.add_column(column, justify="right" if number else "left", no_wrap=not number)
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [_line(header), "|---|" + "---:|" * (len(header) - 1)]
    return [*lines, *map(_line, rows)]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(map(_escaped, cells))} |"


def _escaped(text: str) -> str:
    """A user's text (a row's name, a file's) as Markdown shows it, in one line."""
    for special in ("\\", "|", "*", "_", "`", "<", "["):
        text = text.replace(special, f"\\{special}")
    return " ".join(text.split())
