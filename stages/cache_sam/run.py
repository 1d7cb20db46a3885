"""Stage one's run: every image that the store lacks, once through the mask generator, into the store."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from semires.cache.schema import SCHEMA_VERSION, Manifest
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam.generator import GeneratorSettings, MaskGenerator
from semires.stages.cache_sam.sam import LoadedSam
from semires.stages.data.errors import InputError
from semires.stages.data.images import check_image, load_image
from semires.stages.data.refer import ReferDataset

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image to cache: the id that the store knows it by, and its file."""

    image_id: int
    path: Path


@dataclass(frozen=True, kw_only=True)
class CacheReport:
    """What a run did: images that were in the store before, images and candidate masks that it added."""

    num_present: int
    num_added: int
    num_masks: int


def train_images(dataset: ReferDataset) -> list[ImageSource]:
    """Every train image of a data set once, by image id: what the method needs candidates of."""
    ids = sorted({ref.image_id for ref in dataset.refs_of("train")})
    return [ImageSource(image_id=image_id, path=dataset.image_path(image_id)) for image_id in ids]


def folder_images(folder: Path) -> list[ImageSource]:
    """Every photograph of a folder, sub-folders included; its id is `image_id_of` its path below the folder.

    InputError where there is none, or where a file with an image's ending cannot be opened as one.
    """
    if not folder.is_dir():
        raise InputError(f"--images: expected a folder of photographs, found no folder at {folder}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"--images: expected files ending in {' '.join(IMAGE_SUFFIXES)}, found none in {folder}")
    for path in paths:
        check_image(path)
    return [ImageSource(image_id=image_id_of(path.relative_to(folder)), path=path) for path in paths]


def image_id_of(relative_path: Path) -> int:
    """The store's id of a photograph without one: the first 63 bits of its relative path's sha256.

    It depends on the name alone, so that adding files to a folder renumbers nothing.
    """
    digest = hashlib.sha256(relative_path.as_posix().encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def cache_images(
    images: Sequence[ImageSource],
    location: str | Path,
    *,
    split: str,
    loaded: LoadedSam,
    settings: GeneratorSettings,
    overwrite: bool = False,
    images_per_part: int = 256,
    on_progress: Callable[[int, int], None] | None = None,
) -> CacheReport:
    """Bring the store at `location` up to holding all `images`; what it already holds is left alone.

    `on_progress(done, total)` counts the images of this run. A part is committed every `images_per_part` images, and
    on the way out of any error, so that a stop costs at most the images since the last commit.
    """
    manifest = Manifest(
        schema_version=SCHEMA_VERSION,
        split=split,
        sam=loaded.name,
        sam_sha256=loaded.sha256,
        generator=settings.recorded(),
        num_images=len(images),
    )
    generator = MaskGenerator(loaded.sam, settings)
    num_masks = 0
    with StoreWriter(location, manifest, images_per_part=images_per_part, overwrite=overwrite) as writer:
        by_id = {image.image_id: image for image in images}
        missing = writer.missing(list(by_id))
        for done, image_id in enumerate(missing):
            if on_progress is not None:
                on_progress(done, len(missing))
            candidates = generator.generate(image_id, load_image(by_id[image_id].path))
            writer.add(candidates)
            num_masks += candidates.num_masks
    if on_progress is not None:
        on_progress(len(missing), len(missing))
    return CacheReport(num_present=len(by_id) - len(missing), num_added=len(missing), num_masks=num_masks)
