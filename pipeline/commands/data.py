"""`semires data …`, and `semires make-refshapes`: data sets got, made and checked."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from semires.pipeline.commands import completion
from semires.pipeline.commands.options import CocoImages, Data, given, make_paths, prepare_json

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(help="Data sets: got, made and checked.", no_args_is_help=True)


@app.callback()
def data() -> None:
    """Data sets: got, made and checked."""


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
        typer.Option(
            help="The data set that it is: refcoco, refcoco+, refcocog, refcocog-google, refcoco-m, …",
            autocompletion=completion.data_set,
        ),
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
    from semires.stages.processes.lock import folder_lock

    root = make_paths(data).data
    _make_root(root)
    with progress() as on_progress, folder_lock(root, what="import", or_else="give another --data"):
        report = import_data(
            source,
            split,
            root,
            on_progress=counting(on_progress, "rows"),
            **given(clean_lists=clean_list, overwrite=overwrite),
        )
    for name, count in report.counts.items():
        console.print(f"{name}: {count.refs:,} refs, {count.images:,} images, {count.expressions:,} expressions")
    for line in report.lines:
        console.print(line, soft_wrap=True)
    what = f"{report.num_files:,} files written" if report.num_files else "all of it was here already"
    console.print(f"{report.name}: {what} in {report.folder}", soft_wrap=True)


@app.command("download")
def data_download(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="refcoco, refcoco+, refcocog, coco-train2014, sam-vit-h, sam-vit-l, sam-vit-b, swin-base, bert; "
            "several at once. None: list what there is, how large, and what is here.",
            show_default=False,
            autocompletion=completion.source,
        ),
    ] = None,
    data: Data = None,
    mirror: Annotated[
        str | None,
        typer.Option(
            "--from",
            envvar="SEMIRES_MIRROR",
            help="Address of a folder with the files, in place of the published ones; they must be the same to the "
            "byte. Default: $SEMIRES_MIRROR, else the published addresses.",
            show_default=False,
        ),
    ] = None,
    keep_archive: Annotated[
        bool | None, typer.Option("--keep-archive", help="Keep archives after unpacking (default: no).")
    ] = None,
) -> None:
    """Fetch data sets and weights from where they are published, check them, and put them where commands look.

    Typed again after an interruption it goes on with what has come; what is here and right is not fetched. A file of
    another size or checksum than the published one is kept as FILE.differs (.differs-2, …) and never used.
    """
    from semires.pipeline.progress import console, progress
    from semires.stages.data.download.run import check_mirror, check_room, download, find_sources
    from semires.stages.data.download.sources import DOWNLOADS
    from semires.stages.data.download.telling import Tell
    from semires.stages.processes.lock import folder_lock

    root = make_paths(data).data
    if not names:
        console.print(_sources_table(root))
        return
    sources, mirror = find_sources(names), check_mirror(mirror)
    _make_root(root)
    with progress() as on_progress, folder_lock(root / DOWNLOADS, what="download", or_else="give another --data"):
        check_room(sources, root, **given(keep_archive=keep_archive))
        tell = Tell(say=lambda line: console.print(line, soft_wrap=True), on_progress=on_progress)
        for source in sources:
            download(source, root, tell, mirror=mirror, **given(keep_archive=keep_archive))


@app.command("check")
def data_check(
    name: Annotated[
        str,
        typer.Argument(
            help="A data set (refcoco, refcoco+, refcocog, refcocog-google, refshapes, or what `semires data import` "
            "writes under names of its own: refcoco-clean, refcoco-lmms, refcoco-m, grefcoco, …), a folder with "
            "instances.json and refs(<by>).p, or a .jsonl file of your own.",
            autocompletion=completion.data_set,
        ),
    ],
    data: Data = None,
    coco_images: CocoImages = None,
    open_images: Annotated[
        bool | None, typer.Option("--open-images", help="Decode every image and mask too: minutes (default: no).")
    ] = None,
    bert: Annotated[
        str | None,
        typer.Option(
            help="BERT whose vocabulary reads the expressions: folder or hub name. Default: BERT-base where it is "
            "here, else the nano model's."
        ),
    ] = None,
    text: Annotated[
        Literal["raw", "sent"] | None, typer.Option(help="Text of the expressions: raw (default) or sent.")
    ] = None,
    every: Annotated[bool | None, typer.Option("--all", help="Name all ids (default: the first of a list).")] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="JSON to write, all ids and bad lines in it. Default: none.")
    ] = None,
) -> None:
    """Compare a data set with what is published of it, and say all that is wrong or worth knowing.

    Wrong (exit code 1): other counts than published, refs or lines that cannot be used, images that cannot be decoded,
    images or annotations in train and evaluation that should be in one of them. Information (exit code 0): refs of one
    image or annotation, repeated expressions, expressions that the model does not read whole, empty masks.
    """
    from semires.pipeline.progress import console, progress
    from semires.pipeline.reporting.data_check import counts_table, finding_lines
    from semires.stages.data.checking.check import check_dataset, find_specs
    from semires.stages.data.download.sources import SOURCES
    from semires.stages.data.json_lines.findings import check_json_lines
    from semires.stages.data.json_lines.reading import dataset_of
    from semires.stages.data.refer import ReferDataset
    from semires.stages.data.splits import is_own_data, own_path

    paths = make_paths(data, coco_images)
    if is_own_data(name):
        prepare_json(json_file)
        found = check_json_lines(own_path(name))
        for line in found.report():
            console.print(line, soft_wrap=True)
        if not found.is_usable:
            _write_json(json_file, {"checked": [], "bad_lines": [asdict(line) for line in found.lines.bad]})
            raise typer.Exit(1)
        datasets = [dataset_of(name, found.lines)]
    else:
        specs = find_specs(name, paths.data, paths.images)
        prepare_json(json_file)
        datasets = [ReferDataset.load_spec(*of_one) for of_one in specs]

    from semires.stages.train.models.vocabularies import find_tokenizer  # imports torch, which takes seconds

    checks = []
    for dataset in datasets:
        folder = SOURCES["bert"].target(paths.data)
        tokenizer, whose = find_tokenizer(bert, folder, is_nano=dataset.spec.name == "refshapes")
        with progress() as on_progress:
            options = given(text=text, open_images=open_images)
            check = check_dataset(dataset, tokenizer, on_progress=on_progress, **options)
        console.print(counts_table(check))
        console.print(f"expressions are read by the tokenizer {whose}", soft_wrap=True)
        names = {image_id: file for file, image_id in dataset.image_names.items()}
        shown = names if is_own_data(dataset.spec.name) else None
        for line in finding_lines(check, every=bool(every), image_names=shown):
            console.print(line, soft_wrap=True)
        checks.append(check.to_dict() | {"tokenizer": whose})
    _write_json(json_file, {"checked": checks})
    if any(check["is_wrong"] for check in checks):
        raise typer.Exit(1)


def _write_json(json_file: Path | None, content: dict[str, Any]) -> None:
    from semires.pipeline.progress import console
    from semires.stages.train.models.checkpoints.replacing import replacing_file

    if json_file is None:
        return
    with replacing_file(json_file) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    console.print(f"written: {json_file}", soft_wrap=True)


def _make_root(root: Path) -> None:
    from semires.stages.data.errors import InputError

    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--data: expected a folder that can be made, found {root}: {error.strerror}") from error


def _sources_table(root: Path) -> "Table":
    from rich.table import Table
    from rich.text import Text

    from semires.stages.data.download.run import is_here
    from semires.stages.data.download.sources import SOURCES

    table = Table("name", "what", "MB", "here", "where", title="semires data download NAME", title_justify="left")
    table.columns[2].justify = "right"
    for source in SOURCES.values():
        here = "yes" if is_here(source, root) else "no"
        table.add_row(source.name, source.what, f"{source.size / 1e6:,.0f}", here, Text(str(source.target(root))))
    return table


def make_refshapes(data: Data = None) -> None:
    """Write RefShapes, the embedded benchmark, in the REFER format; commands that need it do so themselves."""
    from semires.pipeline.datasets import load_dataset
    from semires.pipeline.progress import console, progress

    paths = make_paths(data)
    with progress() as on_progress:
        dataset = load_dataset(paths, "refshapes", on_progress)
    console.print(f"{paths.data / 'refshapes'}: {len(dataset.image_ids)} images with refs, {len(dataset.refs)} refs")
