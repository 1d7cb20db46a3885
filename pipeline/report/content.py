"""What is on the page of `semires report`, as its template reads it: words, numbers as they are shown, charts."""

from dataclasses import dataclass

from markupsafe import Markup


@dataclass(frozen=True, kw_only=True)
class CellView:
    """A number as it is shown, with what stands below it; "" for what there is not. is_measured: whether it is ours."""

    value: str
    spread: str = ""
    interval: str = ""
    published: str = ""
    is_measured: bool = True


@dataclass(frozen=True, kw_only=True)
class RowView:
    """A row of a table. tone: of its lines in the charts, None where it has none."""

    name: str
    cells: tuple[CellView, ...]
    tone: str | None = None


@dataclass(frozen=True, kw_only=True)
class TableView:
    """A table with its first column's heading; `name` tells it from the others of the page."""

    name: str
    caption: str
    heading: str
    columns: tuple[str, ...]
    rows: tuple[RowView, ...]


@dataclass(frozen=True, kw_only=True)
class ChartView:
    """A chart, and what stands above it where there are several."""

    drawn: Markup
    heading: str = ""


@dataclass(frozen=True, kw_only=True)
class FigureView:
    """Charts beside each other below one heading, what their lines are, and their numbers as a table.

    legend: (tone, name) of each line where there are several. notes: what a reader must know, whole sentences."""

    heading: str
    charts: tuple[ChartView, ...]
    caption: str
    legend: tuple[tuple[str, str], ...] = ()
    table: TableView | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyView:
    """A study, or runs without one: its tables, its figures, and what is missing, a line each."""

    name: str
    title: str
    tables: tuple[TableView, ...]
    remarks: tuple[str, ...]
    figures: tuple[FigureView, ...]
    not_measured: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class PictureView:
    """A picture of the gallery. source: an address that holds it. alt: what is there, for those who do not see it."""

    source: str
    alt: str
    caption: str


@dataclass(frozen=True, kw_only=True)
class ExampleView:
    """A row of the gallery: an expression with its pictures from image to truth. group, outcome, size, split,
    run: what the filters choose by. about: what is said of it, in a few words each. reasons: why the refined label took
    the candidates that it took."""

    expression: str
    group: str
    outcome: str
    size: str
    split: str
    run: str
    about: tuple[str, ...]
    pictures: tuple[PictureView, ...]
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class GalleryView:
    """Examples of what refinement does (the paper's figures 3 to 5). filters: (field of the examples, heading, values)
    of each that takes more than one value. notes: whole sentences."""

    about: str
    examples: tuple[ExampleView, ...]
    filters: tuple[tuple[str, str, tuple[str, ...]], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RunView:
    """A run as the table of all runs has it; "" for what is not known. split: its data set; scores: oIoU on each of
    the page's evaluation splits."""

    study: str
    split: str
    row: str
    share: str
    seed: str
    scores: tuple[str, ...]
    best_step: str
    duration: str
    folder: str


@dataclass(frozen=True, kw_only=True)
class FactView:
    """A fact of how the numbers came about, and of which runs it is so; `runs` "" for all."""

    name: str
    value: str
    runs: str = ""


@dataclass(frozen=True, kw_only=True)
class SettingsView:
    """Settings of the runs of `study`: those in which the rows differ as a table, those that all have (name, value)."""

    study: str
    differing: TableView | None
    common: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class PageView:
    """All of the page. summary: what was found, a sentence each. made: when, by which semires. notes: what could not be
    shown and why, a line each. run_splits: the columns of the runs' scores. commands: what makes it all again."""

    title: str
    about: str
    made: str
    summary: tuple[str, ...]
    studies: tuple[StudyView, ...]
    gallery: GalleryView | None
    runs: tuple[RunView, ...]
    run_splits: tuple[str, ...]
    facts: tuple[FactView, ...]
    settings: tuple[SettingsView, ...]
    commands: tuple[str, ...]
    notes: tuple[str, ...]
