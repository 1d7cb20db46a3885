"""Reading a store: the candidates of one image at a time, at native resolution."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.errors import RESTORE, StoreError
from semires.cache.index import ImageIndex, ImageLocation
from semires.cache.parts import read_indices
from semires.cache.schema import PARTS, VIEWS, Manifest
from semires.cache.storage import Column, Storage, normalize_location


@dataclass(frozen=True, kw_only=True)
class StoreInfo:
    """What `semires cache info` prints."""

    manifest: Manifest
    """How the store was made."""
    num_parts: int
    """Finished parts."""
    num_images: int
    """Distinct images, those without candidates included."""
    num_masks: int
    """Candidates of these images."""
    num_bytes: int
    """Bytes that the store takes, views and unfinished parts included."""
    min_masks: int
    """Fewest candidates of an image; 0 for an empty store."""
    median_masks: float
    """Median number of candidates of an image; 0 for an empty store."""
    max_masks: int
    """Most candidates of an image; 0 for an empty store."""
    view_sizes: tuple[int, ...]
    """Sizes of the views that were derived, ascending."""


class CandidateStore:
    """The store at `location`, a path or fsspec URL, as a mapping from image id to Candidates.

    Nothing is read before the first use: making one costs nothing, and it pickles as its location, so that every data
    loader worker opens the store itself. The images are those of the parts that were finished at the first use.
    Every access raises StoreError where no readable store of this schema version is at the location.
    """

    def __init__(self, location: str | Path) -> None:
        self.location = normalize_location(location)
        self._opened: _OpenStore | None = None

    def __reduce__(self) -> tuple[type[CandidateStore], tuple[str]]:
        return CandidateStore, (self.location,)

    @property
    def manifest(self) -> Manifest:
        """How the store was made."""
        return self._open().manifest

    @property
    def image_ids(self) -> NDArray[np.int64]:
        """Ids of all images, int64 [I], ascending; images without candidates are among them."""
        return self._open().index.image_ids

    def __len__(self) -> int:
        return len(self._open().index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._open().index

    def num_masks(self, image_id: int) -> int:
        """Number of candidates of the image, without reading them; StoreError where the image is missing."""
        return self._locate(image_id)[1].num_masks

    def __getitem__(self, image_id: int) -> Candidates:
        """The candidates of the image; StoreError where it is missing or its bytes are damaged."""
        opened, found = self._locate(image_id)

        def rows(column: str) -> NDArray[Any]:
            return opened.column(found.part, column).read(found.mask_start, found.mask_stop)

        flat = opened.column(found.part, "bits").read(found.byte_start, found.byte_stop)
        try:
            return Candidates(
                image_id=int(image_id),
                height=found.height,
                width=found.width,
                bits=flat.reshape(found.num_masks, found.height, packed_length(found.width)),
                area=rows("area"),
                boxes_xyxy=rows("box_xyxy"),
                predicted_iou=rows("predicted_iou"),
                stability_score=rows("stability_score"),
                points_xy=rows("point_xy"),
            )
        except StoreError:
            raise
        except ValueError as error:
            raise StoreError(
                f"{self.location}/{PARTS}/{found.part}: expected columns that fit together, found: {error}; {RESTORE}"
            ) from error

    def info(self) -> StoreInfo:
        """Counts and sizes of the whole store; reads no masks."""
        opened = self._open()
        counts = opened.index.masks_per_image
        sizes = [name for name in opened.storage.child_names(VIEWS) if name.isdecimal()]
        return StoreInfo(
            manifest=opened.manifest,
            num_parts=opened.num_parts,
            num_images=len(counts),
            num_masks=int(counts.sum()),
            num_bytes=opened.storage.num_bytes(""),
            min_masks=int(counts.min()) if len(counts) else 0,
            median_masks=float(np.median(counts)) if len(counts) else 0.0,
            max_masks=int(counts.max()) if len(counts) else 0,
            view_sizes=tuple(sorted(int(size) for size in sizes)),
        )

    def _locate(self, image_id: int) -> tuple[_OpenStore, ImageLocation]:
        opened = self._open()
        found = opened.index.locate(image_id)
        if found is None:
            raise StoreError(
                f"{self.location}: expected image {image_id}, found {len(opened.index)} other images; "
                f"run `semires cache-sam --split {opened.manifest.split}` to complete the store"
            )
        return opened, found

    def _open(self) -> _OpenStore:
        if self._opened is None:
            self._opened = _OpenStore(self.location)
        return self._opened


class _OpenStore:
    """What the first use of a store reads: the manifest and the index, and later each column's metadata once."""

    def __init__(self, location: str) -> None:
        self.storage = Storage(location)
        try:
            self.manifest = Manifest.from_attributes(self.storage.attributes)
        except StoreError as error:
            raise StoreError(f"{location}: {error}") from None
        indices = read_indices(self.storage)
        self.index = ImageIndex(indices)
        self.num_parts = len(indices)
        self._columns: dict[str, Column] = {}

    def column(self, part: str, name: str) -> Column:
        path = f"{PARTS}/{part}/{name}"
        if path not in self._columns:
            self._columns[path] = self.storage.open_column(path)
        return self._columns[path]
