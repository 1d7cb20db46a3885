"""`semires data …`, and `semires make-refshapes`: data sets got, made and checked."""

from typing import Annotated

import typer

from semires.pipeline.commands.options import Data, make_paths

app = typer.Typer(help="Data sets: got, made and checked.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Data sets: got, made and checked."""


@app.command("check")
def data_check(
    name: Annotated[str, typer.Argument(help="A .jsonl file of your own.")],
) -> None:
    """Counts by split, and every line that cannot be used with what is wrong; exit code 1 where there is one."""
    from semires.pipeline.progress import console
    from semires.stages.data.errors import InputError
    from semires.stages.data.json_lines.findings import check_json_lines
    from semires.stages.data.splits import is_own_data, own_path

    if not is_own_data(name):
        raise InputError(f"expected a file that ends in .jsonl, found {name!r}")
    found = check_json_lines(own_path(name))
    for line in found.report():
        console.print(line, soft_wrap=True)
    if not found.is_usable:
        raise typer.Exit(1)


def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.stage_runs import load_dataset

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")
