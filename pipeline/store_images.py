"""The images that a store's candidates are of: their ids, their files, and the refs on them."""

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from semires.pipeline.datasets import read_dataset
from semires.pipeline.paths import Paths
from semires.stages.cache_sam.sources import ImageSource, folder_images, train_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.splits import SPLITS, is_own_data, own_path


@dataclass(frozen=True, kw_only=True)
class StoreImages:
    """Images of a data set or of a folder of photographs."""

    where: str
    """What they are images of, for messages."""
    paths: Mapping[int, Path]
    """Image id -> file, of all images."""
    names: Mapping[int, str]
    """Image id -> the file's name; of photographs and of own data its path below their folder."""
    train_ids: frozenset[int]
    """The images that stage one caches."""
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Image id -> (height, width) in pixels as the data set records it; empty for photographs."""
    refs: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Ref id, as text -> (image id, height, width); empty for photographs."""
    is_upright: bool = False
    """Whether the data set's images are turned by their EXIF orientation; of photographs the store knows."""

    @classmethod
    def of_split(cls, split: str, paths: Paths) -> "StoreImages":
        """Those of a data set, which must be here: InputError else."""
        dataset = read_dataset(paths, split)
        return cls(
            where=split,
            paths={image_id: dataset.image_path(image_id) for image_id in dataset.image_ids},
            names={image_id: name for name, image_id in dataset.image_names.items()},
            train_ids=frozenset(source.image_id for source in train_images(dataset)),
            sizes={image_id: dataset.image_size(image_id) for image_id in dataset.image_ids},
            refs={str(ref.ref_id): (ref.image_id, *dataset.image_size(ref.image_id)) for ref in dataset.refs},
            is_upright=dataset.is_upright,
        )

    @classmethod
    def of_split_if_here(cls, split: str, paths: Paths) -> "StoreImages | None":
        """Those of a data set, None where `split` is none or its files are missing."""
        is_known = split in SPLITS or is_own_data(split)
        return cls.of_split(split, paths) if is_known and not paths.missing_files(split) else None

    @classmethod
    def of_folder(cls, folder: Path) -> "StoreImages":
        """The photographs of a folder, as `semires cache-sam --images` numbers them; InputError where none are."""
        paths = {source.image_id: source.path for source in folder_images(folder)}
        names = {image_id: path.relative_to(folder).as_posix() for image_id, path in paths.items()}
        return cls(where=str(folder), paths=paths, names=names, train_ids=frozenset(paths))

    def sources(self) -> list[ImageSource]:
        """All images, as stage one takes them."""
        return [ImageSource(image_id=image_id, path=path) for image_id, path in self.paths.items()]

    def path(self, image_id: int) -> Path:
        """The image's file; InputError for one that is not among them."""
        found = self.paths.get(image_id)
        if found is None:
            raise InputError(
                f"expected an image of {self.where}, found id {image_id}; give the images that were cached"
            )
        return found


def folder_of(split: str | None, images: Path | None) -> Path | None:
    """The folder that paths of images are below: that of photographs, or of a file of own data; None where there is
    none, as ids are the data set's."""
    return own_path(split).parent if split is not None and is_own_data(split) else images


def parse_image_id(text: str, folder: Path | None, held: Collection[int] = ()) -> int:
    """The id that a user means by a number or a path.

    Where a `folder` is given, of photographs or of own data, a file's path below it, or from here, has the id that its
    path below it makes. Else a path means the image of `held`, the store's ids, that was cached under it, or under the
    end of it: its folder need not be named, and the file not be there.
    """
    base = None if folder is None else os.path.abspath(folder)
    if base is not None and os.path.isfile(os.path.join(base, text)):
        return image_id_of(os.path.relpath(os.path.normpath(os.path.join(base, text)), base))
    try:
        return int(text)
    except ValueError:
        if base is not None and os.path.isfile(text):
            return image_id_of(os.path.relpath(os.path.abspath(text), base))
        parts = Path(os.path.normpath(text)).parts
        for start in range(len(parts)):
            image_id = image_id_of(Path(*parts[start:]))
            if image_id in held:
                return image_id
    remedy = "give its number" + (
        ", or its path below the folder that was cached" if folder is None else f", or a path below {folder}"
    )
    raise InputError(f"expected an image id, found {text!r}; {remedy}")
