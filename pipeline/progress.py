"""Progress of long work: a bar on a terminal, plain lines in a log."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

OnProgress = Callable[[str, int, int], None]  # (what is being done, done, total)
SECONDS_BETWEEN_LINES = 15.0

# What is printed holds paths and names of the user: never markup, never an emoji code.
console = Console(highlight=False, markup=False, emoji=False)


@contextmanager
def progress(*, shown: bool = True) -> Iterator[OnProgress]:
    """Give a function to call with (what is being done, done, total); a new description starts a new count.

    Not `shown`, it prints nothing: of several workers one speaks for all.
    """
    if not shown:
        yield lambda what, done, total: None
        return
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as bars:
            tasks = {}

            def show_bar(what: str, done: int, total: int) -> None:
                if what not in tasks:
                    tasks[what] = bars.add_task(what, total=total)
                bars.update(tasks[what], completed=done, total=total)

            yield show_bar
        return

    started: dict[str, float] = {}
    printed: dict[str, float] = {}

    def print_line(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        started.setdefault(what, now)
        is_last = done == total
        if is_last or now - printed.setdefault(what, now) >= SECONDS_BETWEEN_LINES:
            printed[what] = now
            console.print(f"{what}: {done}/{total}  {now - started[what]:.0f} s", soft_wrap=True)
            if is_last:
                del started[what], printed[what]

    yield print_line


def counting(on_progress: OnProgress, what: str) -> Callable[[int, int], None]:
    """The two-argument form that the stages call, under one description."""
    return lambda done, total: on_progress(what, done, total)
