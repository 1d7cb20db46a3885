"""Progress of long work: bars with a note each on a terminal, plain lines in a log."""

import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.segment import Segment
from rich.table import Column
from rich.text import Text

SECONDS_BETWEEN_LINES = 15.0
GONE = -1

# What is printed holds paths and names of the user: never markup, never an emoji code.
console = Console(highlight=False, markup=False, emoji=False)


class OnProgress(Protocol):
    """Is told what is being done, how much of it is done, of how much, and a note: items of plain text with " · "
    between them, such as the loss and the speed. An empty note leaves the one before. A total of `GONE` takes away what
    a terminal shows of it, for nobody is at it any more."""

    def __call__(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """Tell it, as often as there is something new."""


@dataclass
class _Count:
    """What one description was told since it began. Where it began above 0, an earlier process did the rest."""

    done: int
    note: str = ""
    began_at: int = field(init=False)
    began: float = field(init=False)
    now: float = field(init=False)
    printed: float = field(init=False)

    def __post_init__(self) -> None:
        self.began_at = self.done
        self.began = self.now = self.printed = time.monotonic()

    def left(self, total: int) -> str:
        """How long the rest will take at the mean speed since this process began, pauses for evaluations included.

        Not rich's estimate: that of the last 30 seconds knows nothing where a step takes longer.
        """
        if self.done == self.began_at or self.done >= total:
            return ""
        return f"ETA {duration((self.now - self.began) / (self.done - self.began_at) * (total - self.done))}"


class _Counts:
    """The counts of all descriptions."""

    def __init__(self) -> None:
        self._counts: dict[str, _Count] = {}

    def tell(self, what: str, done: int, note: str) -> tuple[_Count, bool]:
        """The count of `what`, brought up to date, and whether it is new: one that falls begins anew."""
        count = self._counts.get(what)
        is_new = count is None or done < count.done
        if count is None or is_new:
            count = self._counts[what] = _Count(done)
        else:
            count.done, count.now = done, time.monotonic()
        count.note = " ".join(note.split()) or count.note
        return count, is_new

    def forget(self, what: str) -> None:
        """The next call for `what` begins anew."""
        self._counts.pop(what, None)


@contextmanager
def progress(*, shown: bool = True) -> Iterator[OnProgress]:
    """Give a function to call with (what is being done, done, total, note); a new description starts a new count.

    Not `shown`, it prints nothing: of several workers one speaks for all.
    """
    if not shown:
        yield lambda what, done, total, note="": None
    elif console.is_interactive:  # a terminal, and not a dumb one, which could not draw over what it has drawn
        with _Bars() as bars:
            yield bars.show
    else:
        yield _print_lines()


class _Bars(Progress):
    """Rich's bars, each with its note on lines of its own below."""

    def __init__(self) -> None:
        self._told = _Counts()
        self._bar_of: dict[str, TaskID] = {}
        super().__init__(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(table_column=Column(no_wrap=True)),  # the bar alone gives way where it is narrow
            TimeElapsedColumn(table_column=Column(no_wrap=True)),
            TextColumn("{task.fields[left]}", style="progress.remaining", markup=False),
            console=console,
        )

    def show(self, what: str, done: int, total: int, note: str = "", /) -> None:
        """As `OnProgress`."""
        if total == GONE:
            self._told.forget(what)
            if what in self._bar_of:
                self.remove_task(self._bar_of.pop(what))
            return
        count, is_new = self._told.tell(what, done, note)
        if what not in self._bar_of:
            self._bar_of[what] = self.add_task(what, total=total, completed=done, left="", note="")
        elif is_new:
            self.reset(self._bar_of[what], total=total, completed=done)
        self.update(self._bar_of[what], total=total, completed=done, left=count.left(total), note=count.note)

    def get_renderables(self) -> Iterable[RenderableType]:
        """One renderable of all bars and notes."""
        yield _Noted(self.make_tasks_table(self.tasks), [task.fields["note"] for task in self.tasks])


@dataclass(frozen=True)
class _Noted:
    """A table of one-line rows with a note below each: rich's own tables have no cell across columns."""

    table: RenderableType
    notes: Sequence[str]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for row, note in zip(console.render_lines(self.table, options, pad=False), self.notes, strict=False):
            yield from row
            yield Segment.line()
            for line in _note_lines(note, options.max_width - 2):
                yield Text(f"  {line}", style="dim", no_wrap=True, overflow="ellipsis")


def _note_lines(note: str, width: int) -> list[str]:
    """A note in lines of `width` characters at most, broken between items where they are short enough."""
    items = note.replace(" ", "\xa0").replace("\xa0·\xa0", "\xa0· ")  # textwrap breaks at plain spaces only
    return [line.replace("\xa0", " ").removesuffix(" ·") for line in textwrap.wrap(items, max(width, 1))]


def _print_lines() -> OnProgress:
    told = _Counts()

    def print_line(what: str, done: int, total: int, note: str = "", /) -> None:
        if total == GONE:
            told.forget(what)
            return
        count, _ = told.tell(what, done, note)
        is_last = done == total
        if is_last or count.now - count.printed >= SECONDS_BETWEEN_LINES:
            count.printed = count.now
            parts = [f"{what}: {done}/{total}", duration(count.now - count.began), count.left(total), count.note]
            console.print("  ".join(part for part in parts if part), soft_wrap=True)
        if is_last:
            told.forget(what)

    return print_line


def duration(seconds: float) -> str:
    """`12 s`, or hours, minutes and seconds."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, whole = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{whole:02d}"


def counting(on_progress: OnProgress, what: str) -> Callable[[int, int], None]:
    """The two-argument form that the stages call, under one description."""
    return lambda done, total: on_progress(what, done, total)
