"""`semires cache …`: what a user does with a candidate store. Work is imported when a command runs, as in cli.py."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from semires.pipeline.commands.candidates.interchange import cache_export, cache_import
from semires.pipeline.commands.options import (
    NUM_NAMED,
    CocoImages,
    Codec,
    Data,
    Device,
    Images,
    Split,
    StoreArgument,
    check_picture,
    given,
    images_of,
    make_paths,
    prepare_file,
    unused,
)
from semires.pipeline.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from semires.cache.reader import StoreInfo

app = typer.Typer(help="Look at a candidate store, check it, move it.", no_args_is_help=True)

NUM_BARS = 12


@app.command("info")
def cache_info(store: StoreArgument) -> None:
    """What a store holds: images, masks, bytes, masks an image as a histogram, and the settings they were made with."""
    from semires.cache.reader import CandidateStore
    from semires.pipeline.progress import console

    info = CandidateStore(store).info()
    manifest = info.manifest
    # A folder of photographs that grew holds more than the manifest knows of.
    is_known = manifest.num_images is not None and manifest.num_images >= info.num_images
    images = f"{info.num_images} of {manifest.num_images} images" if is_known else counted(info.num_images, "image")
    size = "size not known" if info.num_bytes is None else f"{info.num_bytes / 1e6:.1f} MB"
    lines = [
        f"{store}: split {manifest.split}, SAM {manifest.sam} (sha256 {manifest.sam_sha256[:12]})",
        f"{images} in {counted(info.num_parts, 'part')}, {counted(info.num_masks, 'mask')}",
        f"{size}; views at {', '.join(map(str, info.view_sizes)) or 'no size yet'}",
        "generator: "
        + (", ".join(map(_setting, manifest.generator, manifest.generator.values())) or "settings not known"),
        f"masks an image: {info.min_masks} to {info.max_masks}, median {info.median_masks:g}",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
    if info.num_images:
        console.print(_histogram(info))
    for image_id, reason in info.failed.items():
        console.print(f"set aside: image {image_id}, {reason}", soft_wrap=True)


def _setting(name: str, value: int | float | str) -> str:
    return f"{name} {value}" if isinstance(value, str) else f"{name} {value:g}"


def _histogram(info: "StoreInfo") -> "Table":
    """A bar for each of at most NUM_BARS equal ranges of masks an image."""
    import numpy as np
    from rich.bar import Bar
    from rich.table import Table

    width = -(-(info.max_masks - info.min_masks + 1) // NUM_BARS)
    counts = np.bincount((info.masks_per_image - info.min_masks) // width)
    table = Table("masks", "images", "", box=None, header_style="", pad_edge=False)
    table.columns[0].justify = table.columns[1].justify = "right"
    for number, count in enumerate(counts.tolist()):
        first = info.min_masks + number * width
        label = f"{first}" if width == 1 else f"{first} to {first + width - 1}"
        table.add_row(label, f"{count}", Bar(size=float(counts.max()), begin=0, end=count, width=40))
    return table


@app.command("verify")
def cache_verify(
    store: StoreArgument,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is damaged, so that cache-sam redoes it.")
    ] = False,
    every: Annotated[bool, typer.Option("--all", help=f"Name all images, not {NUM_NAMED} of a list.")] = False,
    split: Split = None,
    images: Images = None,
    data: Data = None,
    coco_images: CocoImages = None,
) -> None:
    """Read everything again against its checksums; exit code 1 where something is damaged and stays so.

    With --split or --images, missing images are named too, not only counted.
    """
    from semires.cache.verification import verify_store
    from semires.pipeline.progress import console, counting, progress

    known = images_of(split, images, data, coco_images)
    with progress() as on_progress:
        found = verify_store(
            store,
            repair=repair,
            expected_ids=None if known is None else known.train_ids,
            on_progress=counting(on_progress, "verifying"),
        )

    def say(line: str) -> None:
        console.print(line, soft_wrap=True)

    limit = sys.maxsize if every else NUM_NAMED
    for damage in found.damaged:
        held = f" (images {_some(damage.image_ids, limit)})" if damage.image_ids else ""
        say(f"damaged: {damage.path}: {damage.reason}{held}")
    for image_id, parts in list(found.duplicates.items())[:limit]:
        say(f"twice: image {image_id} is in {', '.join(parts)}; the first counts")
    if len(found.duplicates) > limit:
        say(f"twice: {len(found.duplicates) - limit} more images; --all names them")
    if found.duplicates:
        say(f"to drop second copies: semires cache compact {store}")
    for path in found.unfinished:
        say(f"unfinished: {path}: a writer is at work, or was stopped; it holds nothing that counts")
    for path in found.outdated:
        command = f"semires cache view {store} --size {path.rpartition('/')[2]}"
        say(f"outdated: {path}: resampled by another rule, nothing reads it; `{command}` puts a new one in its place")
    for path in found.repaired:
        say(f"repaired: {path}")
    if found.num_missing:
        names = f": {_some(found.missing, limit)}" if found.missing else ""
        say(f"missing: {counted(found.num_missing, 'image')}{names}; run `{found.manifest.made_by}` to make them")
    state = (
        "intact"
        if found.is_intact
        else f"{counted(len(found.damaged), 'damage')}, " + ("repaired" if repair else "kept")
    )
    held = f"{counted(found.num_images, 'image')} with {counted(found.num_masks, 'mask')}"
    say(f"{store}: {state}; {held} in {counted(found.num_parts, 'part')}")
    if not found.is_intact and not repair:
        say(
            f"to drop what is damaged: semires cache verify {store} --repair; "
            f"then `{found.manifest.made_by}` makes it anew"
        )
        raise typer.Exit(1)


@app.command("show")
def cache_show(
    store: StoreArgument,
    image_id: Annotated[str, typer.Argument(help="The image's id; of photographs and of own data also its path.")],
    image: Annotated[
        Path | None,
        typer.Option(help="The image's file. Default: that of --split or --images, else the sheet is grey."),
    ] = None,
    split: Split = None,
    images: Images = None,
    data: Data = None,
    coco_images: CocoImages = None,
    output: Annotated[Path | None, typer.Option(help="PNG. Default: reports/candidates-<image id>.png.")] = None,
    html: Annotated[
        Path | None,
        typer.Option(help="In place of the PNG one HTML file: point at a mask and see its scores. Default: none."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Of --html: also the labels that this run gives the image's refs, and why they took a mask."
            " Default: none."
        ),
    ] = None,
    ref: Annotated[
        int | None, typer.Option(help="Of --run: the id of one ref. Default: all of the image.", show_default=False)
    ] = None,
    expression: Annotated[
        list[str] | None,
        typer.Option(
            help="Of --run: what to look for (several times: several). Default: the refs' texts.", metavar="TEXT"
        ),
    ] = None,
    device: Device = None,
) -> None:
    """Write a contact sheet (PNG): an image's candidates coloured over it, the largest first, with their scores.

    With --html a page to explore them, and with --run why a refined label took each of them or not.
    """
    from semires.cache.reader import CandidateStore
    from semires.pipeline.progress import console
    from semires.pipeline.store_images import folder_of, parse_image_id
    from semires.stages.data.errors import InputError, printable
    from semires.stages.data.images import load_image

    if sum(option is not None for option in (image, split, images)) > 1:
        raise InputError("expected one of --image, --split and --images, found several; give one")
    if output is not None:
        check_picture("--output", output)
    _check_page_options(output, html, run, ref, expression or [])
    opened = CandidateStore(store)
    number = parse_image_id(image_id, folder_of(split, images), frozenset(opened.image_ids.tolist()))
    candidates = opened[number]

    from semires.pipeline.reporting.contact_sheet import contact_sheet  # imports torch, which takes seconds

    known = images_of(split, images, data, coco_images)
    typed = Path(image_id) if not image_id.isdecimal() and Path(image_id).is_file() else None
    path = image or typed if known is None else known.path(number)
    upright = opened.manifest.is_upright or (known is not None and known.is_upright)
    if html is not None:
        from semires.pipeline.audit.pictures.candidates_page import write_page

        paths = make_paths(data, coco_images)
        write_page(
            html, candidates, path, run, paths, device, upright=upright, ref_id=ref, expressions=expression or ()
        )
        console.print(f"{counted(candidates.num_masks, 'candidate')}; written: {html}", soft_wrap=True)
        return
    sheet = contact_sheet(
        candidates,
        None if path is None else load_image(path, upright=upright),
        title=f"image {number}" + ("" if path is None else f", {printable(path.name)}"),
    )
    target = output or unused(make_paths(None).reports / f"candidates-{number}.png")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sheet.save(target)
    except OSError as error:
        raise InputError(f"--output: expected a picture file that can be written, found {error}") from error
    on_grey = "" if path is not None else " (on grey: --images FOLDER or --split NAME gives the picture)"
    console.print(f"{counted(candidates.num_masks, 'candidate')}; written: {target}{on_grey}", soft_wrap=True)


def _check_page_options(
    output: Path | None, html: Path | None, run: Path | None, ref: int | None, expressions: list[str]
) -> None:
    from semires.stages.data.errors import InputError

    if output is not None and html is not None:
        raise InputError("expected --output or --html, found both; give one")
    if run is not None and html is None:
        raise InputError("--run: expected --html FILE, the page that shows a run's labels, found none; give it")
    if run is None and (ref is not None or expressions):
        raise InputError("expected --run RUN, whose model reads --ref and --expression, found none; give it")
    if ref is not None and expressions:
        raise InputError("expected --ref or --expression, found both; give one")
    prepare_file(html, "--html")


@app.command("view")
def cache_view(
    store: StoreArgument,
    size: Annotated[int, typer.Option(min=1, help="Side in pixels (RefCOCO's family: 480, refshapes: 96).")] = 480,
    codec: Codec = None,
) -> None:
    """Derive the masks at a training size; `semires train` does it by itself."""
    from semires.pipeline.progress import progress
    from semires.pipeline.running.candidate_views import derive_view

    with progress() as on_progress:
        derive_view(store, size, on_progress, **given(codec=codec))


app.command("export")(cache_export)
app.command("import")(cache_import)


def _some(image_ids: tuple[int, ...], limit: int) -> str:
    return ", ".join(map(str, image_ids[:limit])) + (", … (--all names them)" if len(image_ids) > limit else "")
