"""Stage one's run: every image that the store lacks, once through the mask generator, into the store."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.schema import ORIENTATION, SCHEMA_VERSION, UPRIGHT, Manifest
from semires.stages.cache_sam.concepts import ConceptSettings
from semires.stages.cache_sam.filling import CacheReport, fill_store
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.prompts import crops_of
from semires.stages.cache_sam.generator.proposer import PromptedModel
from semires.stages.cache_sam.generator.settings import GeneratorSettings, precision_of
from semires.stages.cache_sam.held import Held
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import LoadedSam
from semires.stages.cache_sam.models.sam3_concepts import Sam3Concepts, Sam3Grid
from semires.stages.cache_sam.sources import ImageSource, UnfitImage
from semires.stages.cache_sam.workers import WorkerGroup
from semires.stages.data.errors import InputError

# Images that a CUDA device is given together: of a SAM for photographs, and of a small one, whose images alone do not
# fill the chip.
_AT_ONCE = 4
_AT_ONCE_SMALL = 16
_LARGE_SIDE = 1024  # pixels; SAMs for photographs have 4,096 tokens an image


def cache_images(
    images: Sequence[ImageSource],
    location: str | Path,
    *,
    split: str,
    loaded: LoadedSam,
    settings: GeneratorSettings,
    group: WorkerGroup | None = None,
    overwrite: bool = False,
    concepts: ConceptSettings | None = None,
    upright: bool = False,
    origin: str = "",
    held: Held | None = None,
    images_per_part: int = 256,
    precision: str | None = None,
    compile: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
    on_compiled: Callable[[float], None] | None = None,
) -> CacheReport:
    """`fill_store` with SAM's candidates: bring the store at `location` up to holding all `images`.

    Workers, signals, `origin`, `held`, images that cannot be decoded, and what the functions given are told: see there.
    With `concepts` the images are searched for theirs, beside the points or in place of them, by `loaded`'s SAM 3.

    `upright` goes into the manifest: whether the images are turned by their EXIF orientation. `precision` is
    `proposer_of`'s, and `compile` its `compiled`; the manifest records the precision that was used.
    `on_compiled(seconds)` is called once, after the warm-up, which begins when the first image is there: a store that
    lacks none compiles nothing. InputError where torch cannot compile here. The generator is given
    `images_at_once(...)` images.

    An image is set aside whose shorter side is nothing at SAM's size (with 1,024 pixels: 2,048 times shorter than the
    longer), or that the device has no memory for, one prompt at a time.
    """
    proposer, generator = _generator(loaded.sam, settings, concepts, images, precision, compile)
    points_per_batch, is_warm = generator.points_per_batch, not compile

    def generate(image_ids: Sequence[int], images: Sequence[NDArray[np.uint8]]) -> list[Candidates]:
        nonlocal is_warm
        for image in images:
            height, width = image.shape[:2]
            _check_fits(height, width, proposer, settings)
        try:
            if not is_warm:
                height, width = images[0].shape[:2]
                seconds = _warm_up(generator, height, width)
                is_warm = True
                if on_compiled is not None:
                    on_compiled(seconds)
            return generator.generate_batch(image_ids, images)
        except torch.OutOfMemoryError:
            pass
        # Outside of the handler, where the error no longer holds the memory. What this image took is not for all.
        generator.points_per_batch = points_per_batch
        torch.cuda.empty_cache()
        raise UnfitImage("expected memory on the device for one prompt at a time, found less; scale the image down")

    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        split=split,
        sam=loaded.name,
        sam_sha256=loaded.sha256,
        generator=(settings.recorded() if concepts is None else concepts.recorded(settings))
        | {"precision": generator.precision}
        | ({ORIENTATION: UPRIGHT} if upright else {}),
        num_images=len({image.image_id for image in images}),
    )
    return fill_store(
        images,
        location,
        manifest,
        generate,
        group=group,
        overwrite=overwrite,
        origin=origin,
        held=held,
        images_at_once=images_at_once(proposer.side, proposer.device, compiled=compile),
        images_per_part=images_per_part,
        on_progress=on_progress,
        on_set_aside=on_set_aside,
    )


def _generator(
    sam: Any,
    settings: GeneratorSettings,
    concepts: ConceptSettings | None,
    images: Sequence[ImageSource],
    precision: str | None,
    compiled: bool,
) -> tuple[PromptedModel, MaskGenerator]:
    """The generator, and the model that encodes for it."""
    if concepts is None:
        proposer = proposer_of(sam, precision, compiled=compiled)
        return proposer, MaskGenerator(proposer, settings)
    if concepts.is_only and compiled:
        raise InputError("--compile: expected a grid of points, which it is for, found --concepts only: leave it out")
    model = Sam3Concepts(sam, precision_of(precision, sam.text.device))
    words = {source.image_id: source.concepts or () for source in images}
    of_words = MaskGenerator(model, concepts.of_words(settings), words=words)
    if concepts.is_only:
        return model, of_words
    grid = Sam3Grid(sam, model, compiled=compiled)
    return grid, MaskGenerator(grid, settings, beside=of_words)


def images_at_once(side: int, device: torch.device, *, compiled: bool) -> int:
    """Images that a generator is given together whose model has `side` pixels a side: on CUDA so that the encoder has
    work enough, on CPU one for each of torch's threads.

    Of a large model on CPU one: a run that is stopped gives up those in hand, which may have taken minutes.
    """
    is_large = side >= _LARGE_SIDE
    if compiled:  # another number of images would be compiled anew
        return 1
    if device.type == "cuda":
        return _AT_ONCE if is_large else _AT_ONCE_SMALL
    return 1 if is_large or device.type != "cpu" else torch.get_num_threads()


def _check_fits(height: int, width: int, proposer: PromptedModel, settings: GeneratorSettings) -> None:
    """UnfitImage where the image, or a crop that the settings ask for, has no pixel left at the model's size."""
    for crop in crops_of(height, width, settings):
        if min(crop.size) < 1:
            raise UnfitImage(
                f"expected pixels for each crop of crop_n_layers {settings.crop_n_layers}, found none for one of layer "
                f"{crop.layer} in {height} x {width} pixels (height, width); give fewer layers"
            )
        if min(proposer.input_size(*crop.size)) < 1:
            raise UnfitImage(
                f"expected sides of at least a pixel when the longer has {proposer.side}, found {height} x {width} "
                "pixels (height, width); cut it into parts that are less long"
            )


def _warm_up(generator: MaskGenerator, height: int, width: int) -> float:
    try:
        return generator.warm_up(height, width)
    except RuntimeError as error:
        from torch._dynamo.exc import TorchDynamoException  # a second to import, for those who compile

        if not isinstance(error, TorchDynamoException):
            raise
        line = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise InputError(
            f"--compile: expected that torch.compile works here, found: {line[:200]}; leave it out"
        ) from error
