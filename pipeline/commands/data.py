"""`semires data …`, and `semires make-refshapes`: data sets got, made and checked."""

import typer

from semires.pipeline.commands.options import Data, make_paths

app = typer.Typer(help="Data sets: got, made and checked.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Data sets: got, made and checked."""


def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.stage_runs import load_dataset

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")
