"""Stage one's run: every image that the store lacks, once through the mask generator, into the store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from semires.cache.schema import SCHEMA_VERSION, Manifest
from semires.stages.cache_sam.filling import CacheReport, fill_store
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.cache_sam.workers import WorkerGroup

if TYPE_CHECKING:
    from semires.stages.cache_sam.generator import GeneratorSettings
    from semires.stages.cache_sam.sam import LoadedSam


def cache_images(
    images: Sequence[ImageSource],
    location: str | Path,
    *,
    split: str,
    loaded: "LoadedSam",
    settings: "GeneratorSettings",
    group: WorkerGroup | None = None,
    overwrite: bool = False,
    images_per_part: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
) -> CacheReport:
    """`fill_store` with SAM's candidates: bring the store at `location` up to holding all `images`.

    Workers, signals, images that cannot be decoded, and what the functions given are told: see there.
    """
    from semires.stages.cache_sam.generator import MaskGenerator

    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        split=split,
        sam=loaded.name,
        sam_sha256=loaded.sha256,
        generator=settings.recorded(),
        num_images=len({image.image_id for image in images}),
    )
    return fill_store(
        images,
        location,
        manifest,
        MaskGenerator(loaded.sam, settings).generate,
        group=group,
        overwrite=overwrite,
        images_per_part=images_per_part,
        on_progress=on_progress,
        on_set_aside=on_set_aside,
    )
