"""The `semires` command, assembled of its command groups.

A command parses, calls, prints; the work is in the modules that it imports when it runs. A user's error (`InputError`,
`StoreError`) is one line on standard error and exit code 2.
"""

import io
import sys

import typer

from semires.pipeline.commands import bench, cache, data, study
from semires.pipeline.commands.cache_sam import cache_sam
from semires.pipeline.commands.convert import convert
from semires.pipeline.commands.data import make_refshapes
from semires.pipeline.commands.export import export
from semires.pipeline.commands.options import expanding_homes
from semires.pipeline.commands.run import evaluate, figure, predict
from semires.pipeline.commands.table1 import table1
from semires.pipeline.commands.train import train

app = typer.Typer(
    help="Semi-supervised referring expression segmentation: SAM candidates once, then a teacher-student LAVT.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(cache.app, name="cache")
app.add_typer(bench.app, name="bench")
app.add_typer(data.app, name="data")
app.add_typer(study.app, name="study")
app.add_typer(data.app, name="data")
app.command("make-refshapes")(make_refshapes)
app.command("cache-sam")(cache_sam)
for command in (train, evaluate, predict, convert, export, table1, figure):
    app.command()(command)
expanding_homes(app)


def main() -> None:
    """Run the command line."""
    from semires.cache.errors import StoreError
    from semires.stages.data.errors import InputError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A name, or a dash of ours, that the terminal's encoding lacks is shown escaped: nothing fails for it.
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except (InputError, StoreError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("stopped; type the command again to go on", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
