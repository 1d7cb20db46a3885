"""A study's tables: on the terminal and as Markdown; and the names that headings have for data sets and methods."""

from collections.abc import Sequence

from rich.table import Table

from semires.pipeline.study.results import SplitTable, StudyResult
from semires.stages.data.splits import plain_name

METHODS = {"supervised": "Supervised", "baseline": "Baseline", "semires": "SemiRES", "semires-cc": "SemiRES-CC"}
TITLES = {
    "refcoco": "RefCOCO",
    "refcoco+": "RefCOCO+",
    "refcocog": "G-Ref (UMD)",
    "refcocog-google": "G-Ref (Google)",
    "refshapes": "RefShapes (embedded benchmark, LAVT-nano; not comparable with the paper)",
    "refcoco-clean": "RefCOCO without the expressions that Ref-L4's reviewers call wrong",
    "refcoco+-clean": "RefCOCO+ without the expressions that Ref-L4's reviewers call wrong",
    "refcocog-clean": "G-Ref (UMD) without the expressions that Ref-L4's reviewers call wrong",
    "refcoco-lmms": "RefCOCO as lmms-lab copied it (one outline an object; val mixed with Google's)",
    "refcoco+-lmms": "RefCOCO+ as lmms-lab copied it (one outline an object)",
    "refcocog-lmms": "G-Ref as lmms-lab copied it (one outline an object; val mixed with Google's)",
    "grefcoco": "gRefCOCO (several objects or none)",
    "refcoco-m": "RefCOCO-M (RefCOCO's val with new masks)",
}


def title_of(split: str) -> str:
    """A data set in the words of a heading; own data by its file's name."""
    return TITLES.get(split) or plain_name(split)


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


def as_markdown(result: StudyResult) -> str:
    """All tables with what is missing, as a Markdown page."""
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
    if result.not_measured:
        lines += ["", "## Not measured", "", *[f"- {_escaped(note)}" for note in result.not_measured]]
    return "\n".join(lines) + "\n"


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
        drawn.add_column(column, justify="right" if number else "left")
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
