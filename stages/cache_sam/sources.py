"""The images of stage one: the id that the store knows each by, and where its file is."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from semires.stages.cache_sam.listing import list_folder
from semires.stages.data.errors import InputError, printable
from semires.stages.data.images import image_id_of
from semires.stages.data.refer import ReferDataset


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
    upright: bool = False
    """Whether it is turned by its EXIF orientation, as `load_image` does where it is asked to."""
    is_turned: bool = False
    """Whether that makes another picture of it, where it is known: of own data."""
    concepts: tuple[str, ...] | None = None
    """Words that it is searched for, see concepts.py; None where it is for none."""


def train_images(dataset: ReferDataset) -> list[ImageSource]:
    """Every train image of a data set once, by image id: what the method needs candidates of."""
    ids = sorted({ref.image_id for ref in dataset.refs_of("train")})
    return [
        ImageSource(
            image_id=image_id,
            path=dataset.image_path(image_id),
            size=dataset.image_size(image_id),
            upright=dataset.is_upright,
            is_turned=image_id in dataset.turned_ids,
        )
        for image_id in ids
    ]


def require_folder(folder: Path) -> None:
    """InputError where there is no folder of photographs."""
    if not folder.is_dir():
        raise InputError(
            f"--images: expected a folder of photographs, found no folder at {printable(str(folder))}; check the path"
        )


def folder_images(
    folder: Path, *, upright: bool = True, on_left_out: Callable[[str], None] | None = None
) -> list[ImageSource]:
    """Every photograph of a folder, sub-folders included; its id is `image_id_of` its path below the folder.

    Goes by the files' endings and opens none; `on_left_out` is told in words what is left out, if anything is (see
    listing.py). upright: see `ImageSource`. InputError where there is no folder, or no photograph in it.
    """
    require_folder(folder)
    listing = list_folder(folder)
    left_out = listing.left_out()
    if not listing.paths:
        raise InputError(
            f"--images: expected picture files such as .jpg or .png, found none in {printable(str(folder))}"
            + (f", only {left_out}" if left_out else "")
        )
    if left_out and on_left_out is not None:
        on_left_out(left_out)
    return [
        ImageSource(image_id=image_id_of(path.relative_to(folder)), path=path, upright=upright)
        for path in listing.paths
    ]
