"""`semires table1`: the paper's main table, measured."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import AllowMissing, CocoImages, Data, Device, LogTo, check_folder, make_paths


def table1(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell, with seeds 0, 1, ...")] = 1,
    split: Annotated[list[str] | None, typer.Option(help="Only these; also a .jsonl file.", show_default=False)] = None,
    share: Annotated[list[float] | None, typer.Option(help="Only these labeled shares.", show_default=False)] = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    swin: Annotated[
        str | None, typer.Option(help="Pre-trained Swin of LAVT: folder, .pth file or hub name; not of refshapes.")
    ] = None,
    bert: Annotated[
        str | None, typer.Option(help="Pre-trained BERT of LAVT: local folder or hub name; not of refshapes.")
    ] = None,
    num_workers: Annotated[
        int | None, typer.Option(min=0, help="Data-loader processes a GPU (default: by the machine's cores).")
    ] = None,
    runs: Annotated[Path | None, typer.Option(help="Folder of the runs. Default: runs.")] = None,
    device: Device = None,
    log_to: LogTo = None,
) -> None:
    """Table 1 of the paper, measured on every data set that is here; goes on where it stopped.

    A data set that is here and cannot be measured whole is named; the exit code is then 1.
    """
    from semires.pipeline.progress import progress
    from semires.pipeline.running.loggers import choose_loggers
    from semires.pipeline.running.processes import joined_ranks
    from semires.pipeline.running.stage_runs import choose_device
    from semires.pipeline.table1 import run_table1
    from semires.stages.data.errors import InputError

    chosen_device = choose_device(device)
    with joined_ranks(chosen_device) as ranks:
        if ranks.is_many:
            raise InputError(
                f"table1: expected one process, found {ranks.world_size} that torchrun started; start it alone, or "
                "train single runs with torchrun and `semires train`"
            )
        loggers = choose_loggers(log_to)
        paths = make_paths(data, coco_images, runs, allow_missing=allow_missing)
        for option, folder in (("--runs", paths.runs / "table1"), ("reports", paths.reports)):
            check_folder(option, folder)
        with progress() as on_progress:
            is_whole = run_table1(
                paths,
                chosen_device,
                on_progress,
                splits=split,
                shares=share,
                num_seeds=seeds,
                swin=swin,
                bert=bert,
                num_workers=num_workers,
                log_to=loggers,
            )
    if not is_whole:
        raise typer.Exit(1)
