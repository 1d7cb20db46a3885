"""The images that a store's candidates are of: their ids, their files, and the refs on them."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from semires.pipeline.datasets import read_dataset
from semires.pipeline.paths import Paths
from semires.stages.cache_sam.sources import folder_images, train_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of
from semires.stages.data.splits import SPLITS, is_own_data


@dataclass(frozen=True, kw_only=True)
class StoreImages:
    """Images of a data set or of a folder of photographs."""

    where: str
    """What they are images of, for messages."""
    paths: Mapping[int, Path]
    """Image id -> file, of all images."""
    folder: Path
    """The folder that images are named below."""
    train_ids: frozenset[int]
    """The images that stage one caches."""
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    """Image id -> (height, width) in pixels as the data set records it; empty for photographs."""
    refs: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    """Ref id, as text -> (image id, height, width); empty for photographs."""

    @classmethod
    def of_split(cls, split: str, paths: Paths) -> "StoreImages":
        """Those of a data set, which must be here: InputError else."""
        dataset = read_dataset(paths, split)
        return cls(
            where=split,
            paths={image_id: dataset.image_path(image_id) for image_id in dataset.image_ids},
            folder=dataset.image_folder,
            train_ids=frozenset(source.image_id for source in train_images(dataset)),
            sizes={image_id: dataset.image_size(image_id) for image_id in dataset.image_ids},
            refs={str(ref.ref_id): (ref.image_id, *dataset.image_size(ref.image_id)) for ref in dataset.refs},
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
        return cls(where=str(folder), paths=paths, folder=folder, train_ids=frozenset(paths))

    def path(self, image_id: int) -> Path:
        """The image's file; InputError for one that is not among them."""
        found = self.paths.get(image_id)
        if found is None:
            raise InputError(
                f"expected an image of {self.where}, found id {image_id}; give the images that were cached"
            )
        return found

    def file_names(self) -> dict[int, str]:
        """Paths of the files below the image folder by image id, "/" between folders; of own data they may lead out."""
        return {image_id: _path_below(path, self.folder).as_posix() for image_id, path in self.paths.items()}


def _path_below(path: Path, folder: Path) -> Path:
    """The path from `folder` to the file, however both are spelled."""
    return Path(os.path.relpath(path, folder))


def parse_image_id(text: str, folder: Path | None) -> int:
    """The id that a user means: a number, or where a `folder` of photographs is given, the path of one: below it, or
    from the working directory."""
    if folder is not None and (folder / text).is_file():
        return image_id_of(_path_below(folder / text, folder))
    try:
        return int(text)
    except ValueError as error:
        if folder is not None and Path(text).is_file():
            return image_id_of(_path_below(Path(text), folder))
        remedy = (
            "give its number" if folder is not None else "give its number, or --images FOLDER to name it by its path"
        )
        raise InputError(f"expected an image id, found {text!r}; {remedy}") from error
