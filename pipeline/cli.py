"""The `semires` command, assembled of its command groups.

A command parses, calls, prints; the work is in the modules that it imports when it runs. A user's error (`InputError`,
`StoreError`), and what the operating system refuses, is one line on standard error and exit code 2.
"""

import sys
from importlib.metadata import version
from typing import Annotated, Any, NoReturn

import typer
from typer.core import TyperGroup

from semires.pipeline.commands import bench, cache_rewriting, data, study
from semires.pipeline.commands.cache_sam import cache_sam
from semires.pipeline.commands.convert import convert
from semires.pipeline.commands.data import make_refshapes
from semires.pipeline.commands.demo import demo
from semires.pipeline.commands.export import export
from semires.pipeline.commands.options import expanding_homes
from semires.pipeline.commands.predict import predict
from semires.pipeline.commands.report import report
from semires.pipeline.commands.run import evaluate, figure
from semires.pipeline.commands.table1 import table1
from semires.pipeline.commands.train import train
from semires.pipeline.output import LastingOutput


class _Commands(TyperGroup):
    """The commands; Ctrl-C is heard here, because typer makes an exit without a word of it."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that was typed."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            print("stopped; type the command again to go on", file=sys.stderr)
            raise typer.Exit(getattr(stop, "exit_code", 130)) from None


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


def _say_version(asked: bool) -> None:
    if asked:
        print(f"semires {version('semires')}")
        raise typer.Exit()


@app.callback()
def semires(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Semi-supervised referring expression segmentation: SAM candidates once, then a teacher-student LAVT."""


app.add_typer(cache_rewriting.app, name="cache")  # the same group, with what changes a store
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.command("make-refshapes")(make_refshapes)
app.command("cache-sam")(cache_sam)
for command in (train, evaluate, predict, demo, convert, export, table1, figure, report):
    app.command()(command)
expanding_homes(app)


def main() -> None:
    """Run the command line."""
    with LastingOutput():
        _run()


def _run() -> None:
    from semires.cache.errors import StoreError
    from semires.stages.data.errors import InputError

    try:
        app()
    except (InputError, StoreError) as error:
        _fail(str(error))
    except MemoryError as error:
        _fail(f"expected enough memory, found none left ({error}): end other programs, or give smaller batches")
    except OSError as error:
        _fail(_refusal(error))
    except RuntimeError as error:
        if not str(error).startswith("DataLoader worker (pid"):
            raise
        # torch says so wherever the signal finds this process, in the middle of a step too.
        _fail(f"a process that reads images died ({error}): memory may be short, give a smaller --num-workers")


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
