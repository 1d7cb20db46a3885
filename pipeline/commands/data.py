"""`semires data …`, and `semires make-refshapes`: data sets got, made and checked."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.options import Data, given, make_paths

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


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="A zip or folder of lichengunc/refer, a parquet file or a folder of such, or a name on the Hugging "
            "Face hub: jxu124/refcoco, lmms-lab/RefCOCO, moondream/refcoco-m, …",
            show_default=False,
        ),
    ],
    split: Annotated[
        str,
        typer.Option(help="The data set that it is: refcoco, refcoco+, refcocog, refcocog-google, refcoco-m, …"),
    ],
    data: Data = None,
    clean_list: Annotated[
        list[Path] | None,
        typer.Option(
            help="A reviewed list of Ref-L4, repeatable: its wrong expressions (caption_quality 0) are left out, and "
            "the data set is called <split>-clean. Default: none.",
            metavar="<file>",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool | None, typer.Option("--overwrite", help="Replace files that differ. Default: they are named, and stay.")
    ] = None,
) -> None:
    """Write a copy of a data set, in whatever format it is, in the REFER layout below the data root."""
    from semires.pipeline.progress import console, counting, progress
    from semires.stages.data.importing.run import import_data

    with progress() as on_progress:
        report = import_data(
            source,
            split,
            make_paths(data).data,
            on_progress=counting(on_progress, "rows"),
            **given(clean_lists=clean_list, overwrite=overwrite),
        )
    for name, count in report.counts.items():
        console.print(f"{name}: {count.refs:,} refs, {count.images:,} images, {count.expressions:,} expressions")
    for line in report.lines:
        console.print(line, soft_wrap=True)
    what = f"{report.num_files:,} files written" if report.num_files else "all of it was here already"
    console.print(f"{report.name}: {what} in {report.folder}", soft_wrap=True)


def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.progress import console, progress
    from semires.pipeline.stage_runs import load_dataset

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")
