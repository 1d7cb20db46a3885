"""`semires cache drop` and `semires cache compact`: what changes a store that is there."""

from pathlib import Path
from typing import Annotated

import typer

from semires.pipeline.commands.candidates.cache import Codec, StoreArgument, app
from semires.pipeline.commands.options import CocoImages, Data, Split, given
from semires.pipeline.wording import counted


@app.command("drop")
def cache_drop(
    store: StoreArgument,
    images: Annotated[
        list[str], typer.Argument(help="Image ids; of photographs and of own data also paths.", metavar="IMAGE...")
    ],
    split: Split = None,
    folder: Annotated[
        Path | None, typer.Option("--images", help="The folder of photographs that paths are below. Default: none.")
    ] = None,
    codec: Codec = None,
    data: Data = None,
    coco_images: CocoImages = None,
) -> None:
    """Drop the candidates of images, so that cache-sam makes them anew; everything else stays.

    Nothing else may be wrong with the store. It can be read and written meanwhile; views follow.
    """
    from semires.cache.reader import CandidateStore
    from semires.cache.rewriting import drop_images
    from semires.pipeline.progress import console
    from semires.pipeline.store_images import folder_of, parse_image_id

    opened = CandidateStore(store)
    held = frozenset(opened.image_ids.tolist())
    below = folder_of(split, folder)
    numbers = {parse_image_id(text, below, held): text for text in images}
    missing = [text for number, text in numbers.items() if number not in held]
    if missing:
        from semires.stages.data.errors import InputError

        raise InputError(
            f"{store}: expected images of the store, found {', '.join(map(repr, missing[:3]))}"
            f"{' and others' if len(missing) > 3 else ''}, which it does not hold; nothing was dropped"
        )
    dropped = drop_images(store, numbers, **given(codec=codec))
    console.print(
        f"{store}: {counted(len(dropped), 'image')} dropped, {len(held) - len(dropped)} stay; "
        f"`{opened.manifest.made_by}` makes them anew",
        soft_wrap=True,
    )


@app.command("compact")
def cache_compact(store: StoreArgument, codec: Codec = None) -> None:
    """Merge small parts, drop second copies of images (two runs at once) and leftovers of runs that were stopped.

    Candidates stay as they are. The store can be read and written meanwhile; views follow. A group of parts takes twice
    its room until it is merged; what is stopped half-way is merged by the next time.
    """
    from semires.cache.rewriting import compact_store
    from semires.pipeline.progress import console, counting, progress

    with progress() as on_progress:
        done = compact_store(store, on_progress=counting(on_progress, "rewriting images"), **given(codec=codec))
    for path in done.leftovers:
        console.print(f"deleted: {path}: nobody will finish it", soft_wrap=True)
    console.print(
        f"{store}: {counted(done.num_parts_before, 'part')} became {done.num_parts}; {done.num_copies} second copies "
        "of images dropped",
        soft_wrap=True,
    )
