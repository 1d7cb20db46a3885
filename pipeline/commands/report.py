"""`semires report`: studies and runs as a page to look at."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import AllowMissing, CocoImages, Data, Device, Runs, check_folder, make_paths


def report(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="RUNS|STUDY…", help="Folders of runs, finished or not; recipes' names or .toml files of studies."
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Folder that index.html is written to; one of ours is replaced.")
    ] = Path("reports/report"),
    full: Annotated[bool, typer.Option("--full", help="Of studies: the paper's data sets and shares.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Of studies: seeds 0, 1, … (default: its own).")] = None,
    gallery: Annotated[int, typer.Option(min=0, help="Most examples of the gallery; 0: none.")] = 60,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    runs: Runs = None,
    device: Device = None,
) -> None:
    """One HTML file that has it all: tables beside the published numbers, learning curves, label quality, a gallery.

    Scores that are not kept are measured first. What cannot be shown is said, and costs nothing else.
    """
    import inspect

    from semires.pipeline.commands.train import train
    from semires.pipeline.progress import console, progress
    from semires.pipeline.report.page import build_report, check_output
    from semires.pipeline.report.sources import finished_result, read_sources
    from semires.pipeline.running.stage_runs import choose_device

    paths = make_paths(data, coco_images, runs, allow_missing=allow_missing)
    chosen_device = choose_device(device)
    found = read_sources(sources, full=full, num_seeds=seeds)
    check_output(output)
    check_folder("--output", output)
    with progress() as on_progress:
        path = build_report(
            [finished_result(study, paths, chosen_device, on_progress) for study in found.studies],
            found.runs,
            paths,
            chosen_device,
            on_progress,
            output=output,
            num_gallery=gallery,
            train_options=inspect.signature(train).parameters.keys(),
        )
    console.print(f"written: {path}", soft_wrap=True)
