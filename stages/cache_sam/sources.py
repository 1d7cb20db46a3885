"""The images of stage one: the id that the store knows each by, and where its file is."""

from dataclasses import dataclass
from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.refer import ReferDataset

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


class UnfitImage(Exception):
    """An image was decoded and has no candidates all the same; the text says why, and goes into the store's list."""


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """An image to cache."""

    image_id: int
    """The id that the store knows it by."""
    path: Path
    """Its file."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels that the data set records; training refuses a file of another size. None: not known."""


def train_images(dataset: ReferDataset) -> list[ImageSource]:
    """Every train image of a data set once, by image id: what the method needs candidates of."""
    ids = sorted({ref.image_id for ref in dataset.refs_of("train")})
    return [
        ImageSource(image_id=image_id, path=dataset.image_path(image_id), size=dataset.image_size(image_id))
        for image_id in ids
    ]


def folder_images(folder: Path) -> list[ImageSource]:
    """Every photograph of a folder, sub-folders included; its id is `image_id_of` its path below the folder.

    Goes by the files' endings and opens none. InputError where there is no folder, or nothing of these endings in it.
    """
    if not folder.is_dir():
        raise InputError(f"--images: expected a folder of photographs, found no folder at {folder}")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise InputError(f"--images: expected files ending in {' '.join(IMAGE_SUFFIXES)}, found none in {folder}")
    return [ImageSource(image_id=image_id_of(path.relative_to(folder)), path=path) for path in paths]
