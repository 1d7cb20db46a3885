"""`semires table1`: the paper's main table, measured; another name for `semires study table1`."""

from typing import Annotated

import typer

from semires.pipeline.commands.options import (
    AllowMissing,
    Bert,
    CocoImages,
    Data,
    Device,
    LogTo,
    NumWorkers,
    Runs,
    Swin,
)
from semires.pipeline.commands.study import Share, Split, Workers, run_command


def table1(
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each cell, with seeds 0, 1, ...")] = 1,
    split: Split = None,
    share: Share = None,
    data: Data = None,
    coco_images: CocoImages = None,
    allow_missing: AllowMissing = False,
    swin: Swin = None,
    bert: Bert = None,
    num_workers: NumWorkers = None,
    runs: Runs = None,
    device: Device = None,
    workers: Workers = None,
    log_to: LogTo = None,
) -> None:
    """Table 1 of the paper, measured on every data set that is here; goes on where it stopped.

    The same as `semires study table1`, which has more options.
    """
    run_command(
        "table1",
        seeds=seeds,
        split=split,
        share=share,
        data=data,
        coco_images=coco_images,
        allow_missing=allow_missing,
        swin=swin,
        bert=bert,
        num_workers=num_workers,
        runs=runs,
        device=device,
        workers=workers,
        log_to=log_to,
    )
