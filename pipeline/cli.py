"""The `semires` command, assembled of its command groups.

A command parses, calls, prints; the work is in the modules that it imports when it runs. A user's error (`InputError`,
`StoreError`), and what the operating system refuses, is one line on standard error and exit code 2.
"""

import sys
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from semires.pipeline.commands import bench, data, study
from semires.pipeline.commands.candidates import rewriting
from semires.pipeline.commands.candidates.cache_sam import cache_sam
from semires.pipeline.commands.convert import convert
from semires.pipeline.commands.demo import demo
from semires.pipeline.commands.doctor import doctor
from semires.pipeline.commands.export import export
from semires.pipeline.commands.options import expanding_homes
from semires.pipeline.commands.predict import predict
from semires.pipeline.commands.report import report
from semires.pipeline.commands.run import evaluate, figure
from semires.pipeline.commands.table1 import table1
from semires.pipeline.commands.train import train
from semires.pipeline.output import LastingOutput

DATA, STAGE_ONE, STAGE_TWO, STUDIES, TOOLS = PANELS = (
    *("Data", "Stage one: candidates", "Stage two: training and use"),
    *("Studies and reports", "Tools"),
)


class _Commands(TyperGroup):
    """The commands; Ctrl-C is heard here, because typer makes an exit without a word of it."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The commands' names panel by panel, which typer would begin with the groups."""
        panels = {name: PANELS.index(command.rich_help_panel) for name, command in self.commands.items()}  # type: ignore[attr-defined]
        return sorted(self.commands, key=panels.__getitem__)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            print("stopped; type the command again to go on", file=sys.stderr)
            raise typer.Exit(getattr(stop, "exit_code", 130)) from None


app = typer.Typer(cls=_Commands, no_args_is_help=True, pretty_exceptions_enable=False)


def _say_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"semires {version('semires')}")
        raise typer.Exit()


@app.callback()
def semires(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Semi-supervised referring expression segmentation: SAM candidates once, then a teacher-student LAVT."""


# A line a command: its panel in `semires --help`, and there its place.
app.add_typer(data.app, name="data", rich_help_panel=DATA)
app.command("make-refshapes", rich_help_panel=DATA)(data.make_refshapes)
app.command("cache-sam", rich_help_panel=STAGE_ONE)(cache_sam)
app.add_typer(rewriting.app, name="cache", rich_help_panel=STAGE_ONE)  # the same group, with what changes a store
app.command("train", rich_help_panel=STAGE_TWO)(train)
app.command("evaluate", rich_help_panel=STAGE_TWO)(evaluate)
app.command("predict", rich_help_panel=STAGE_TWO)(predict)
app.command("demo", rich_help_panel=STAGE_TWO)(demo)
app.command("figure", rich_help_panel=STAGE_TWO)(figure)
app.command("table1", rich_help_panel=STUDIES)(table1)
app.add_typer(study.app, name="study", rich_help_panel=STUDIES)
app.command("report", rich_help_panel=STUDIES)(report)
app.command("doctor", rich_help_panel=TOOLS)(doctor)
app.command("convert", rich_help_panel=TOOLS)(convert)
app.command("export", rich_help_panel=TOOLS)(export)
app.add_typer(bench.app, name="bench", rich_help_panel=TOOLS)
expanding_homes(app)


def main() -> None:
    """Run the command line."""
    with LastingOutput():
        _run()


def _run() -> None:
    try:
        app(prog_name="semires")  # as `python -m semires.pipeline.cli` too
    except Exception as error:
        text = _explained(error)
        if text is None:
            raise
        _fail(text)


def _explained(error: Exception) -> str | None:
    """What a user is told of an error that is no fault of the program's; None where it is one."""
    from semires.stages.data.errors import InputError

    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, MemoryError):
        return f"expected enough memory, found none left ({error}): end other programs, or give smaller batches"
    if isinstance(error, OSError):
        return _refusal(error)
    if isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid"):
        # torch says so wherever the signal finds this process, in the middle of a step too.
        return f"a process that reads images died ({error}): memory may be short, give a smaller --num-workers"
    from semires.cache.errors import StoreError  # with it comes the store, for which no help has to wait

    return str(error) if isinstance(error, StoreError) else None


def _fail(text: str) -> NoReturn:
    print(f"error: {text}", file=sys.stderr)
    sys.exit(2)


def _refusal(error: OSError) -> str:
    """What the operating system refuses, with the path where it names one: a full disk, a file in a folder's place, a
    folder of somebody else's."""
    reason = error.strerror or " ".join(str(error).split()) or type(error).__name__
    paths = [str(name) for name in (error.filename, error.filename2) if name is not None]
    what = f"{' and '.join(paths)}: expected to read or write there" if paths else "expected to read or write a file"
    return f"{what}, found: {reason}; mend it (path, permissions, free space), then type the command again"


if __name__ == "__main__":
    main()
