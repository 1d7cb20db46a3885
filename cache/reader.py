"""Reading a store: the candidates of one image at a time, at native resolution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.errors import RESTORE, DamageError, StoreError
from semires.cache.failures import read_failures
from semires.cache.files import FileRecord
from semires.cache.index import ImageIndex, ImageLocation, contiguous_runs
from semires.cache.parts import read_indices
from semires.cache.schema import PARTS, VIEWS, Manifest
from semires.cache.storage.columns import Column
from semires.cache.storage.hierarchy import Storage, normalize_location


@dataclass(frozen=True, kw_only=True, eq=False)
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
    num_bytes: int | None
    """Bytes that the store takes, views and unfinished parts included; None where a server does not tell."""
    min_masks: int
    """Fewest candidates of an image; 0 for an empty store."""
    median_masks: float
    """Median number of candidates of an image; 0 for an empty store."""
    max_masks: int
    """Most candidates of an image; 0 for an empty store."""
    masks_per_image: NDArray[np.int64]
    """Candidates of each image, int64 [I], in the order of image ids; what a histogram counts."""
    view_sizes: tuple[int, ...]
    """Sizes of the views that were derived, ascending."""
    failed: Mapping[int, str]
    """Images set aside, by id: "file name: reason"; those that were stored since are not among them."""


class CandidateStore:
    """The store at `location`, a path or fsspec URL, as a mapping from image id to Candidates.

    Nothing is read before the first use: making one costs nothing, and it pickles as its location, so that every data
    loader worker opens the store itself. The images are those of the parts that were finished at the first use.
    Every access raises StoreError where no readable store of this schema version is at the location.

    >>> import semires
    >>> store = semires.CandidateStore("data/cache/refshapes.zarr")
    >>> image_id = int(store.image_ids[0])
    >>> candidates = store[image_id]
    >>> candidates.masks().shape == (store.num_masks(image_id), *store.size(image_id))
    True
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

    @property
    def failed(self) -> dict[int, str]:
        """Images set aside because they could not be decoded, by id, ascending: "file name: reason"."""
        opened = self._open()
        failures = read_failures(opened.storage)
        return {image_id: failures[image_id] for image_id in sorted(failures) if image_id not in opened.index}

    def __len__(self) -> int:
        return len(self._open().index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._open().index

    @property
    def origins(self) -> frozenset[str]:
        """What the parts say of whose images they hold, "" among them where one does not say."""
        return self._open().origins

    def file(self, image_id: int) -> FileRecord | None:
        """What is known of the image's file; StoreError where the image is missing."""
        return self._locate(image_id)[1].file

    def size(self, image_id: int) -> tuple[int, int]:
        """(height, width) of the image in pixels; StoreError where it is missing."""
        found = self._locate(image_id)[1]
        return found.height, found.width

    def num_masks(self, image_id: int) -> int:
        """Number of candidates of the image, without reading them; StoreError where the image is missing."""
        return self._locate(image_id)[1].num_masks

    def __getitem__(self, image_id: int) -> Candidates:
        """The candidates of the image; StoreError where it is missing or its bytes are damaged."""
        return self.read([image_id])[0]

    def read(self, image_ids: Iterable[int]) -> list[Candidates]:
        """The candidates of several images, in the order asked; StoreError where one is missing or damaged.

        Images that lie side by side in a part, as neighbours in the order of writing do, are read as one slice: their
        arrays are then views of one buffer. From a remote store all slices are fetched at once. Against single reads,
        12 neighbours of 100 masks of 480x640 take 0.8 of the time, 32 neighbours of two tiny masks 0.12 of it.
        """
        asked = list(image_ids)
        try:
            return self._read(asked)
        except DamageError:
            # A part may have been replaced by others of the same images since this store was opened (rewriting.py).
            if not self._open().is_outdated():
                raise
            current = _OpenStore(self.location)
            if any(current.index.locate(image_id) is None for image_id in asked):
                raise
            self._opened = current
            return self._read(asked)

    def _read(self, image_ids: list[int]) -> list[Candidates]:
        opened = self._open()
        asked = [self._locate(image_id)[1] for image_id in image_ids]
        images = read_located(opened.storage, asked, opened.column)
        return [images[found.image_id] for found in asked]

    def info(self) -> StoreInfo:
        """Counts and sizes of the whole store; reads no masks."""
        opened = self._open()
        counts = opened.index.masks_per_image
        names = [name for name in opened.storage.child_names(VIEWS) if name.isdecimal()]
        found = opened.storage.group_attributes([f"{VIEWS}/{name}" for name in names])
        sizes = [int(name) for name, attributes in zip(names, found, strict=True) if attributes is not None]
        return StoreInfo(
            manifest=opened.manifest,
            num_parts=opened.num_parts,
            num_images=len(counts),
            num_masks=int(counts.sum()),
            num_bytes=opened.storage.num_bytes(""),
            min_masks=int(counts.min()) if len(counts) else 0,
            median_masks=float(np.median(counts)) if len(counts) else 0.0,
            max_masks=int(counts.max()) if len(counts) else 0,
            masks_per_image=counts,
            view_sizes=tuple(sorted(sizes)),
            failed=self.failed,
        )

    def _locate(self, image_id: int) -> tuple[_OpenStore, ImageLocation]:
        opened = self._open()
        found = opened.index.locate(image_id)
        if found is None:
            raise StoreError(
                f"{self.location}: expected image {image_id}, found {len(opened.index)} other images; check the id, or "
                f"for an image that is yet to come run the `{opened.manifest.made_by}` that made the store again, with "
                "the same options"
            )
        return opened, found

    def _open(self) -> _OpenStore:
        if self._opened is None:
            self._opened = _OpenStore(self.location)
        return self._opened


MASK_COLUMNS = ("bits", "area", "box_xyxy", "predicted_iou", "stability_score", "point_xy")
"""Columns of a part that hold the candidates of its images."""


def candidates_at(found: ImageLocation, columns: Mapping[str, NDArray[Any]], *, start: ImageLocation) -> Candidates:
    """The candidates at `found` from slices of `MASK_COLUMNS` that begin with the image at `start` of the same part.

    ValueError where the slices do not hold such candidates.
    """
    rows = slice(found.mask_start - start.mask_start, found.mask_stop - start.mask_start)
    flat = columns["bits"][found.byte_start - start.byte_start : found.byte_stop - start.byte_start]
    return Candidates(
        image_id=found.image_id,
        height=found.height,
        width=found.width,
        bits=flat.reshape(found.num_masks, found.height, packed_length(found.width)),
        area=columns["area"][rows],
        boxes_xyxy=columns["box_xyxy"][rows],
        predicted_iou=columns["predicted_iou"][rows],
        stability_score=columns["stability_score"][rows],
        points_xy=columns["point_xy"][rows],
    )


def read_located(
    storage: Storage, locations: Sequence[ImageLocation], column_of: Callable[[str, str], Column]
) -> dict[int, Candidates]:
    """The candidates at these places by image id, each run of neighbours as one slice; `column_of(part, name)` opens.

    DamageError where a column does not hold them.
    """
    runs = contiguous_runs(locations)
    slices = [(column_of(run[0].part, name), *_extent(name, run[0], run[-1])) for run in runs for name in MASK_COLUMNS]
    arrays = iter(storage.read_slices(slices))
    images: dict[int, Candidates] = {}
    for run in runs:
        columns = {name: next(arrays) for name in MASK_COLUMNS}
        for found in run:
            try:
                images[found.image_id] = candidates_at(found, columns, start=run[0])
            except ValueError as error:
                raise DamageError(
                    f"{storage.location}/{PARTS}/{found.part}: expected columns that fit together, found: {error}; "
                    f"{RESTORE}"
                ) from error
    return images


def _extent(column: str, first: ImageLocation, last: ImageLocation) -> tuple[int, int]:
    """Rows of a column from the first image to the last, which follow each other."""
    return (first.byte_start, last.byte_stop) if column == "bits" else (first.mask_start, last.mask_stop)


class _OpenStore:
    """What the first use of a store reads: the manifest and the index, and later each column's metadata once."""

    def __init__(self, location: str) -> None:
        self.storage = Storage(location)
        try:
            self.manifest = Manifest.from_attributes(self.storage.attributes)
        except StoreError as error:
            raise StoreError(f"{location}: {error}") from None
        self._indices = read_indices(self.storage)
        self.index = ImageIndex(self._indices)
        self.num_parts = len(self._indices)
        self.origins = frozenset(index.origin for index in self._indices.values())
        self._columns: dict[str, Column] = {}

    def column(self, part: str, name: str) -> Column:
        path = f"{PARTS}/{part}/{name}"
        if path not in self._columns:
            self._columns[path] = self.storage.open_column(path, self._indices[part].columns.get(name))
        return self._columns[path]

    def is_outdated(self) -> bool:
        """Whether a part that was there is gone."""
        return None in self.storage.group_attributes([f"{PARTS}/{name}" for name in self._indices])
