"""`semires cache …`: what a user does with a candidate store. Work is imported when a command runs, as in cli.py."""

from typing import Annotated

import typer

app = typer.Typer(help="Look at a candidate store.", no_args_is_help=True)


@app.command("info")
def cache_info(store: Annotated[str, typer.Argument(help="A candidate store.")]) -> None:
    """What a store holds: images, masks, bytes, and the settings they were made with."""
    from semires.cache.reader import CandidateStore
    from semires.pipeline.progress import console

    info = CandidateStore(store).info()
    manifest = info.manifest
    expected = "" if manifest.num_images is None else f" of {manifest.num_images}"
    console.print(f"{store}: split {manifest.split}, SAM {manifest.sam} (sha256 {manifest.sam_sha256[:12]})")
    console.print(f"{info.num_images}{expected} images in {info.num_parts} parts, {info.num_masks} masks")
    console.print(f"masks an image: {info.min_masks} to {info.max_masks}, median {info.median_masks:g}")
    console.print(f"{info.num_bytes / 1e6:.1f} MB; views at {', '.join(map(str, info.view_sizes)) or 'no size yet'}")
    console.print("generator: " + ", ".join(f"{name} {value:g}" for name, value in manifest.generator.items()))


@app.command("view")
def cache_view(
    store: Annotated[str, typer.Argument(help="A candidate store.")],
    size: Annotated[int, typer.Option(min=1, help="Side in pixels (RefCOCO's family: 480, refshapes: 64).")] = 480,
) -> None:
    """Derive the masks at a training size; `semires train` does it by itself."""
    from semires.cache.views import build_view
    from semires.pipeline.progress import counting, progress

    with progress() as on_progress:
        build_view(store, size, counting(on_progress, f"candidates at {size}x{size}"))
