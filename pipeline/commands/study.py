"""`semires study …`: what an idea is worth, measured on a finished run without training."""

import json
from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import (
    AllowMissing,
    CocoImages,
    Data,
    Device,
    Store,
    make_paths,
    prepare_json,
    unused,
)

app = typer.Typer(help="Measure ideas on a finished run, without training.", no_args_is_help=True)


@app.callback()
def study() -> None:
    """Measure ideas on a finished run, without training."""


@app.command("labels")
def labels_study(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; a burn-in is one too.")],
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    store: Store = None,
    device: Device = None,
    expressions: Annotated[
        int, typer.Option(min=0, help="Expressions of a ref that consensus reads at most; 0: all.")
    ] = 2,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON to write. Default: reports/labels.json.")
    ] = None,
) -> None:
    """Pseudo-labels of a run's teacher under every refinement, side by side, against the hidden masks."""
    from semires.pipeline.audit.labels import study_labels
    from semires.pipeline.audit.report import notes, tables
    from semires.pipeline.progress import console, progress
    from semires.pipeline.running.stage_runs import choose_device
    from semires.stages.train.models.checkpoints.replacing import replace_text

    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    chosen_device = choose_device(device)
    prepare_json(json_file)
    with progress() as on_progress:
        found = study_labels(run, paths, chosen_device, on_progress, expressions=expressions or None, store=store)
    for table in tables(found):
        console.print(table)
    for note in notes(found):
        console.print(note, soft_wrap=True)
    target = json_file or unused(paths.reports / "labels.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    replace_text(target, json.dumps(found.to_dict(), indent=1) + "\n")
    console.print(f"written: {target}", soft_wrap=True)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(help="Folders of finished runs, one a seed.")],
    against: Annotated[list[Path], typer.Option(help="A run to compare with; once for each run, in the same order.")],
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    device: Device = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="JSON to write.")] = None,
) -> None:
    """Paired differences in oIoU of two methods' runs, with 95% intervals by bootstrap over seeds and images."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.study.comparison import compare_runs, comparison_table
    from semires.stages.train.models.checkpoints.replacing import replace_text

    paths = make_paths(data, coco_images, allow_missing=allow_missing)
    prepare_json(json_file)
    with progress() as on_progress:
        found = compare_runs(runs, against, paths, choose_device(device), on_progress)
    console.print(comparison_table(found))
    if json_file is not None:
        replace_text(json_file, json.dumps(found.to_dict(), indent=1) + "\n")
        console.print(f"written: {json_file}", soft_wrap=True)
