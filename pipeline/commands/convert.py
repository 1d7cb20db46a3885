"""`semires convert`: weights in and out."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    source: Annotated[
        Path, typer.Argument(help="Checkpoint of LAVT, SemiRES or Swin (.pth), a finished run, or a model folder.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder to write; with --to lavt, a .pth file.")],
    to: Annotated[
        str | None,
        typer.Option(help="folder (default), lavt (model and BERT apart) or lavt-one: LAVT's own layouts."),
    ] = None,
    bert: Annotated[
        str | None,
        typer.Option(help="BERT of a LAVT checkpoint, for its vocabulary: folder or hub name. Default: BERT-base."),
    ] = None,
    mha: Annotated[
        str | None,
        typer.Option(help="Fusion heads of a LAVT checkpoint, as its code has them: 4-4-4-4. Default: 1-1-1-1."),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(help="Side in patches to which a Swin's tables of positions are resized. Default: none."),
    ] = None,
) -> None:
    """Make one folder of a checkpoint or a run, to predict with, share and push to a hub; or go back to LAVT's file."""
    import inspect

    from semires.pipeline.commands.options import given
    from semires.pipeline.commands.train import train
    from semires.pipeline.conversion import convert as run_conversion
    from semires.pipeline.progress import console
    from semires.stages.train.models.checkpoints.lavt_layout import parse_heads

    lines = run_conversion(
        source,
        output,
        fusion_heads=None if mha is None else parse_heads(mha),
        train_options=inspect.signature(train).parameters.keys(),
        **given(to=to, bert=bert, window=window),
    )
    for line in lines:
        console.print(line, soft_wrap=True)
