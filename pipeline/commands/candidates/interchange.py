"""`semires cache export` and `semires cache import`: candidates as other programs' files, out of a store and in."""

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from semires.pipeline.commands.options import (
    NUM_NAMED,
    CocoImages,
    Codec,
    Data,
    Images,
    Split,
    Store,
    StoreArgument,
    given,
    images_of,
    make_paths,
)
from semires.pipeline.wording import counted


def cache_export(
    store: StoreArgument,
    folder: Annotated[Path, typer.Argument(help="Where to write, a JSON file an image.")],
    format: Annotated[Literal["coco"], typer.Option(help="coco: as SA-1B, COCO run lengths.")] = "coco",
    split: Split = None,
    images: Images = None,
    data: Data = None,
    coco_images: CocoImages = None,
) -> None:
    """Write the candidates in a common format; with --split or --images, files are named after the images."""
    from semires.cache.interchange.export import export_coco
    from semires.pipeline.progress import console, counting, progress

    known = images_of(split, images, data, coco_images)
    with progress() as on_progress:
        num_written = export_coco(
            store,
            folder,
            file_names=None if known is None else known.names,
            on_progress=counting(on_progress, "exporting"),
        )
    console.print(f"{num_written} files written to {folder}", soft_wrap=True)


def cache_import(
    source: Annotated[Path, typer.Argument(help="Folder of the masks' files, or one file.")],
    split: Annotated[
        str | None,
        typer.Option(
            help="Whose candidates they are: as of cache-sam; or any name, for images that have ids of their own."
            " Default: none, --images.",
            show_default=False,
        ),
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="The folder of photographs they are of, for --split. Default: none.")
    ] = None,
    format: Annotated[
        Literal["coco", "masks", "labels", "npy", "semires"],
        typer.Option(
            help="coco: JSON of SA-1B, COCO, LVIS, COCO's results, amg.py; masks: a PNG a mask, a folder an image; "
            "labels: a labelled PNG an image; npy: an array an image; semires: the public code's sam_rle_mask."
        ),
    ] = "coco",
    store: Store = None,
    codec: Codec = None,
    data: Data = None,
    coco_images: CocoImages = None,
) -> None:
    """Make a store of masks that somebody has already, so that nobody has to run SAM again (docs/importing-masks.md).

    What `semires cache export` wrote keeps its settings, so that cache-sam can go on with the store.
    """
    from semires.cache.interchange.importing import import_masks, imported_manifest
    from semires.cache.interchange.known_images import KnownImages
    from semires.pipeline.progress import console, counting, progress
    from semires.pipeline.store_images import StoreImages
    from semires.stages.cache_sam.held import file_record_at, folder_origin, look_at_store, split_origin
    from semires.stages.data.errors import InputError
    from semires.stages.data.files.json_records import load_records
    from semires.stages.data.splits import plain_name

    if (split is None) == (images is None):
        raise InputError("expected either --split NAME or --images FOLDER, found " + ("both" if split else "neither"))
    paths = make_paths(data, coco_images)
    known: StoreImages | None
    if images is not None:
        known, name, origin = StoreImages.of_folder(images), images.resolve().name, folder_origin(images)
    else:
        assert split is not None
        name = plain_name(split)
        # The public code's files are named after refs, which only the data set knows.
        known = (StoreImages.of_split if format == "semires" else StoreImages.of_split_if_here)(split, paths)
        origin = "" if known is None else split_origin(split)
    target = store or paths.store(split or name)
    with progress() as on_progress:
        if known is not None:
            held = look_at_store(known.sources(), target, origin, on_progress=counting(on_progress, "comparing images"))
            for line in held.lines("to import them anew, `semires cache drop` them first"):
                console.print(line, soft_wrap=True)
        report = import_masks(
            source,
            target,
            imported_manifest(name, None if known is None else len(known.train_ids)),
            format=format,
            load_records=load_records,
            images=None
            if known is None
            else KnownImages(where=known.where, file_names=known.names, sizes=known.sizes, refs=known.refs),
            on_progress=counting(on_progress, "importing"),
            origin=origin,
            file_of=None if known is None else lambda image_id: file_record_at(known.paths.get(image_id)),
            **given(codec=codec),
        )
    for line in report.left_out[:NUM_NAMED]:
        console.print(f"left out: {line}", soft_wrap=True)
    if len(report.left_out) > NUM_NAMED:
        console.print(f"left out: {len(report.left_out) - NUM_NAMED} more")
    # Only what has expressions can be trained on: photographs have none, nor has a name that is no data set's.
    hint = f"semires cache info {shlex.quote(str(target))}"
    if split is not None and known is not None:
        options = {"--split": split, "--store": store, "--data": data, "--coco-images": coco_images}
        typed = (f"{name} {shlex.quote(str(value))}" for name, value in options.items() if value is not None)
        hint = " ".join(["semires train", *typed])
    console.print(
        f"{target}: {counted(report.num_added, 'image')} added with {counted(report.num_masks, 'candidate mask')}, "
        f"{report.num_present} were there; next: {hint}",
        soft_wrap=True,
    )
