"""Stage one's run: every image that the store lacks, once through the mask generator, into the store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
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
    precision: str | None = None,
    compile: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
    on_compiled: Callable[[float], None] | None = None,
) -> CacheReport:
    """`fill_store` with SAM's candidates: bring the store at `location` up to holding all `images`.

    Workers, signals, images that cannot be decoded, and what the functions given are told: see there. `precision` and
    `compile` are `MaskGenerator`'s; the manifest records the precision that was used. `on_compiled(seconds)` is called
    once, after the warm-up, which begins when the first image is there: a store that lacks none compiles nothing.
    """
    from semires.stages.cache_sam.generator import MaskGenerator

    generator = MaskGenerator(loaded.sam, settings, precision=precision, compile=compile)
    is_warm = not compile

    def generate(image_id: int, image: NDArray[np.uint8]) -> Candidates:
        nonlocal is_warm
        if not is_warm:
            seconds = generator.warm_up(*image.shape[:2])
            is_warm = True
            if on_compiled is not None:
                on_compiled(seconds)
        return generator.generate(image_id, image)

    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        split=split,
        sam=loaded.name,
        sam_sha256=loaded.sha256,
        generator=settings.recorded() | {"precision": generator.precision},
        num_images=len({image.image_id for image in images}),
    )
    return fill_store(
        images,
        location,
        manifest,
        generate,
        group=group,
        overwrite=overwrite,
        images_per_part=images_per_part,
        on_progress=on_progress,
        on_set_aside=on_set_aside,
    )
