"""`semires export`: a trained model as a program for other runtimes."""

import sys
from pathlib import Path
from typing import Annotated

import typer


def export(
    source: Annotated[Path, typer.Argument(help="Folder of a run or of a model.")],
    format: Annotated[str, typer.Option(help="torch-export (.pt2) or onnx (needs semires[onnx]).")] = "torch-export",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File to write. Default: reports/<name>.pt2 or .onnx.")
    ] = None,
    fixed_size: Annotated[
        bool, typer.Option("--fixed-size", help="Only the batch size stays free, not the images' size.")
    ] = False,
) -> None:
    """Export a model (torch.export or ONNX) and check it against the original; exit code 1 where they differ."""
    from typing import get_args

    from rich.table import Table

    from semires.pipeline.commands.options import make_paths, unused
    from semires.pipeline.progress import console
    from semires.pipeline.trained import open_trained
    from semires.stages.data.errors import InputError
    from semires.stages.train.models.export import SUFFIXES, TOLERANCES, Format, export_model

    if format not in get_args(Format):
        raise InputError(f"--format: expected one of {', '.join(get_args(Format))}, found {format!r}")
    chosen: Format = format  # type: ignore[assignment]
    model = open_trained(source)
    target = output or unused(make_paths(None).reports / f"{source.resolve().name}{SUFFIXES[chosen]}")
    target.parent.mkdir(parents=True, exist_ok=True)
    parities = export_model(model, target, chosen, fixed_size=fixed_size)
    table = Table("images", "largest difference of logits", "same argmax")
    for parity in parities:
        table.add_row(" x ".join(map(str, parity.shape)), f"{parity.difference:.1e}", f"{parity.agreement:.4%}")
    console.print(table)
    worst = max(parity.difference for parity in parities)
    if worst > TOLERANCES[chosen]:
        print(
            f"error: expected logits within {TOLERANCES[chosen]:g} of the model's, found {worst:.1e}; nothing is kept",
            file=sys.stderr,
        )
        raise typer.Exit(1)
    console.print(f"written: {target}", soft_wrap=True)
