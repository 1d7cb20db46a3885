"""Table 1, measured: on the terminal, as Markdown and as JSON."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from semires.pipeline.recipes import TABLE1_METHODS
from semires.pipeline.reporting.published import published
from semires.pipeline.scoring.scores import RunScores
from semires.stages.data.splits import plain_name, spec_of

METHODS = {"supervised": "Supervised", "baseline": "Baseline", "semires": "SemiRES", "semires-cc": "SemiRES-CC"}
NOT_THE_PAPERS = (
    "SemiRES-CC is not the paper's: it also uses which expressions mean one object and which refs are of one image "
    "(README, Better labels than the paper's)"
)
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


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One run of a grid with its scores."""

    seed: int
    scores: RunScores


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One cell of Table 1: oIoU in per cent of each seed, with the paper's number (None where it has none)."""

    measured: tuple[float, ...]
    published: float | None

    def __str__(self) -> str:
        if not self.measured:
            text = "–"
        elif len(self.measured) == 1:
            text = f"{self.measured[0]:.2f}"
        else:
            text = f"{statistics.mean(self.measured):.2f} ± {statistics.stdev(self.measured):.2f}"
        return text if self.published is None else f"{text} ({self.published:.2f})"


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """Table 1 of one data set: `rows` by method, each with a cell for every share and evaluation split.

    `dropped_refs`: the most refs that the data set had lost on loading when a run was scored."""

    split: str
    columns: tuple[str, ...]
    rows: dict[str, tuple[Cell, ...]]
    dropped_refs: int = 0


def split_table(split: str, shares: Sequence[float], runs: Sequence[Measured]) -> SplitTable:
    """Gather the runs of one data set into the paper's layout: methods down, shares and splits across."""
    # The splits of own data are those that were measured.
    evaluation = spec_of(split).evaluation or tuple(dict.fromkeys(name for run in runs for name in run.scores.by_split))
    rows: dict[str, tuple[Cell, ...]] = {}
    for method in TABLE1_METHODS:
        cells = []
        for share in shares:
            for name in evaluation:
                values = tuple(
                    run.scores.by_split[name]["oiou"]
                    for run in sorted(runs, key=lambda run: run.seed)
                    if run.scores.method == method and run.scores.labeled == share and name in run.scores.by_split
                )
                cells.append(Cell(measured=values, published=published("Table 1", split, METHODS[method], share, name)))
        rows[method] = tuple(cells)
    columns = tuple(f"{share * 100:g}% {name}" for share in shares for name in evaluation)
    dropped_refs = max((run.scores.dropped_refs or 0 for run in runs), default=0)
    return SplitTable(split=split, columns=columns, rows=rows, dropped_refs=dropped_refs)


def as_rich(table: SplitTable) -> Table:
    """The table for a terminal."""
    drawn = Table(
        title=f"{title_of(table.split)}, oIoU %",
        title_justify="left",
        caption="\n".join(_remarks(table)) or None,
        caption_justify="left",
    )
    drawn.add_column("method")
    for column in table.columns:
        drawn.add_column(column, justify="right")
    for method, cells in table.rows.items():
        drawn.add_row(METHODS[method], *map(str, cells))
    return drawn


def as_markdown(tables: Sequence[SplitTable], notes: Sequence[str]) -> str:
    """All tables with what is missing, as a Markdown page."""
    lines = ["# Table 1, measured", "", "Overall IoU in per cent; in parentheses the paper's number."]
    for table in tables:
        lines += ["", f"## {title_of(table.split)}", ""]
        lines.append("| method | " + " | ".join(table.columns) + " |")
        lines.append("|---|" + "---:|" * len(table.columns))
        lines += [f"| {METHODS[m]} | " + " | ".join(map(str, cells)) + " |" for m, cells in table.rows.items()]
        for remark in _remarks(table):
            lines += ["", f"{remark}."]
    if notes:
        lines += ["", "## Not measured", "", *[f"- {note}" for note in notes]]
    return "\n".join(lines) + "\n"


def as_json(tables: Sequence[SplitTable], runs: Sequence[Measured], notes: Sequence[str]) -> dict[str, Any]:
    """Everything measured: the tables cell by cell, and every run's scores."""
    return {
        "tables": [asdict(table) for table in tables],
        "runs": [asdict(run) for run in runs],
        "not_measured": list(notes),
    }


def _remarks(table: SplitTable) -> list[str]:
    """What a reader must know of a table, a sentence each without its full stop."""
    without = _without(table.dropped_refs)
    measured = any(cell.measured for cell in table.rows["semires-cc"])
    return [*([NOT_THE_PAPERS] if measured else []), *([without] if without else [])]


def _without(dropped_refs: int) -> str | None:
    """What a reader must know of scores of a data set that was not whole."""
    return f"Without {dropped_refs} refs of the data set that were dropped on loading" if dropped_refs else None
