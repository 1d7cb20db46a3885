"""Views: every candidate of a store at the training size, derived, packed flat and quick to read.

    views/pil-nearest/<S>/                attributes: schema_version, size, resampling
    views/pil-nearest/<S>/parts/<name>/   attributes: the index of the part of the same name; written after the columns
        image_id     int64 [I]
        mask_offset  int64 [I + 1]   rows of `bits` that belong to image i
        bits         uint8 [M, ceil(S * S / 8)]   nearest-neighbour at S x S, aspect not kept

A view may be deleted and rebuilt any time; its parts follow the parts of the store one by one. Views of another
resampling rule lie in another folder: one that is derived anew in place of an outdated one cannot mix with it, wherever
that is interrupted and however many do it at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length, resize_nearest_packed
from semires.cache.errors import DamageError, StoreError
from semires.cache.index import ImageIndex, ImageLocation, contiguous_runs
from semires.cache.parts import PartIndex, check_columns, read_indices
from semires.cache.schema import ALL_VIEWS, PARTS, RESAMPLING, VIEWS, Manifest, view_attributes
from semires.cache.storage.access import writing
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.columns import Column
from semires.cache.storage.hierarchy import Storage, normalize_location

# Reading 100 masks of 480x480 takes 1.9 ms at 32 masks a chunk, 2.0 at 16 (1 % larger files), 2.4 at 64 (more of other
# images).
_MASKS_PER_CHUNK = 32
_BYTES_PER_SHARD = 64 * 2**20


def build_view(
    location: str | Path,
    size: int,
    on_progress: Callable[[int, int], None] | None = None,
    *,
    codec: str = str(DEFAULT_CODEC),
    on_outdated: Callable[[str], None] | None = None,
) -> None:
    """Derive the view of `size` x `size` pixels of the store at `location` (a path or fsspec URL).

    Derives the parts that have no view yet and drops views of parts that are gone, so it resumes where it was
    interrupted and follows a store that grew; two processes that derive the same view with the same codec write the
    same bytes and do not disturb each other. `on_progress(done, total)` is told the number of images at the start and
    after each part. `codec` ("zstd-3", see storage/codec.py) compresses the parts that are derived now.

    A view of this size that was resampled by another rule is deleted, and this one takes its place; `on_outdated(path)`
    is told so before.

    Raises StoreError where there is no store, where a part is damaged, where a view has the attributes of another, or
    where the view cannot be written.
    """
    if size < 1:
        raise StoreError(f"view size: expected at least 1 pixel, found {size}; give the training size, e.g. 480")
    parsed_codec = Codec.parse(codec)
    storage = Storage(normalize_location(location), writable=True)
    try:
        Manifest.from_attributes(storage.attributes)
    except StoreError as error:
        raise StoreError(f"{storage.location}: {error}") from None
    outdated = f"{ALL_VIEWS}/{size}"
    if str(size) in storage.child_names(ALL_VIEWS):
        if on_outdated is not None:
            on_outdated(f"{storage.location}/{outdated}")
        # First: at the training size it may take more room than the parts.
        storage.delete_group(outdated)
    root = f"{VIEWS}/{size}"
    # Listed before the parts: a part and its view that others finish in between are then both left alone.
    viewed = storage.child_names(f"{root}/{PARTS}")
    parts = read_indices(storage)
    attributes = storage.group_attributes([root])[0]
    if attributes is None:
        storage.write_group(root, view_attributes(size))
    else:
        _check_attributes(storage, size, attributes)
    finished = read_indices(storage, f"{root}/{PARTS}")
    for name in viewed:
        if name not in parts:
            storage.delete_group(f"{root}/{PARTS}/{name}")

    total = sum(len(index.image_id) for index in parts.values())
    done = sum(len(index.image_id) for name, index in parts.items() if name in finished)
    if on_progress is not None:
        on_progress(done, total)
    for name, index in parts.items():
        if name in finished:
            continue
        try:
            with writing(f"{storage.location}/{root}"):
                derive_part(storage, name, index, size, parsed_codec)
        except DamageError:
            if storage.group_attributes([f"{PARTS}/{name}"]) != [None]:
                raise
            break  # it was replaced (rewriting.py): what came in its place is derived below
        done += len(index.image_id)
        if on_progress is not None:
            on_progress(done, total)
    if not parts.keys() <= set(storage.child_names(PARTS)):
        build_view(location, size, on_progress, codec=codec)


def _check_attributes(storage: Storage, size: int, attributes: dict[str, Any]) -> None:
    """StoreError unless the attributes are those of the view of `size`; what its parts hold is then not known."""
    expected = view_attributes(size)
    if not expected.items() <= attributes.items():
        raise StoreError(
            f"{storage.location}/{VIEWS}/{size}: expected attributes {expected}, found {attributes}; "
            f"repair it with `semires cache verify {storage.location} --repair`"
        )


def derive_part(storage: Storage, name: str, index: PartIndex, size: int, codec: Codec) -> None:
    """Write the part `name` of the view of `size`: columns shard by shard, then the metadata that makes it exist."""
    check_columns(storage, name, index)
    native = storage.open_column(f"{PARTS}/{name}/bits", index.columns.get("bits"))
    path = f"{VIEWS}/{size}/{PARTS}/{name}"
    for column, data in (("image_id", index.image_id), ("mask_offset", index.mask_offset)):
        storage.write_column(f"{path}/{column}", data, rows_per_chunk=len(data), codec=codec)

    mask_bytes = packed_length(size * size)
    masks_per_shard = max(1, _BYTES_PER_SHARD // (mask_bytes * _MASKS_PER_CHUNK)) * _MASKS_PER_CHUNK
    bits = storage.new_column(
        f"{path}/bits",
        shape=(index.num_masks, mask_bytes),
        dtype=np.dtype(np.uint8),
        rows_per_chunk=_MASKS_PER_CHUNK,
        rows_per_shard=masks_per_shard,
        codec=codec,
        period=size // math.gcd(size, 8),  # whole bytes that hold whole rows
    )
    # Small images grow in a view, so a part is not held whole: image by image it becomes compressed chunks.
    for row in range(len(index.image_id)):
        bits.append(_resize_image(native, index, row, size))
    bits.close()
    checksums = storage.column_checksums(path, ("image_id", "mask_offset", "bits"))
    storage.write_group(path, replace(index, columns=checksums, origin="", files=None).to_attributes())


def _resize_image(native: Column, index: PartIndex, row: int, size: int) -> NDArray[np.uint8]:
    """View of the image at `row` of a part, uint8 [M, ceil(size * size / 8)], from the part's column `bits`."""
    width = int(index.width[row])
    flat = native.read(int(index.byte_offset[row]), int(index.byte_offset[row + 1]))
    packed = flat.reshape(int(index.masks_per_image[row]), int(index.height[row]), packed_length(width))
    return resize_nearest_packed(packed, width=width, size=size)


class CandidateView:
    """The view of `size` of the store at `location`, as a mapping from image id to packed masks.

    Like CandidateStore it reads nothing before the first use and pickles as its location and size. It needs only the
    view: a store whose parts are elsewhere is no obstacle. StoreError where the view was never built, or only with
    another resampling rule.
    """

    def __init__(self, location: str | Path, size: int) -> None:
        self.location = normalize_location(location)
        self.size = size
        self._opened: _OpenView | None = None

    def __reduce__(self) -> tuple[type[CandidateView], tuple[str, int]]:
        return CandidateView, (self.location, self.size)

    def __len__(self) -> int:
        return len(self._open().index)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._open().index

    def __getitem__(self, image_id: int) -> NDArray[np.uint8]:
        """The image's candidates, uint8 [M, ceil(size * size / 8)]; StoreError where it is missing or damaged."""
        return self.read([image_id])[0]

    def read(self, image_ids: Iterable[int]) -> list[NDArray[np.uint8]]:
        """The candidates of several images, in the order asked; neighbours in a part are views of one buffer.

        From a remote store all images are fetched at once. StoreError as for one.
        """
        asked = list(image_ids)
        try:
            return self._read(asked)
        except DamageError:
            # As in CandidateStore.read; the view of what came in place of a part is there before the part goes.
            if not self._open().is_outdated():
                raise
            current = _OpenView(self.location, self.size)
            if any(current.index.locate(image_id) is None for image_id in asked):
                raise
            self._opened = current
            return self._read(asked)

    def _read(self, image_ids: list[int]) -> list[NDArray[np.uint8]]:
        opened = self._open()
        asked = [self._locate(image_id) for image_id in image_ids]
        runs = contiguous_runs(asked)
        slices = [(opened.bits(run[0].part), run[0].mask_start, run[-1].mask_stop) for run in runs]
        images: dict[int, NDArray[np.uint8]] = {}
        for run, bits in zip(runs, opened.storage.read_slices(slices), strict=True):
            start = run[0].mask_start
            images.update({found.image_id: bits[found.mask_start - start : found.mask_stop - start] for found in run})
        return [images[found.image_id] for found in asked]

    def _locate(self, image_id: int) -> ImageLocation:
        opened = self._open()
        found = opened.index.locate(image_id)
        if found is None:
            raise StoreError(
                f"{self.location}/{VIEWS}/{self.size}: expected image {image_id}, found {len(opened.index)} other "
                f"images; derive it with `semires cache view {self.location} --size {self.size}`, or where the store "
                "lacks it too make it with `semires cache-sam` first"
            )
        return found

    def _open(self) -> _OpenView:
        if self._opened is None:
            self._opened = _OpenView(self.location, self.size)
        return self._opened


class _OpenView:
    """What the first use of a view reads: its index, and later the metadata of each part's bits once."""

    def __init__(self, location: str, size: int) -> None:
        self.storage = Storage(location)
        self._root = f"{VIEWS}/{size}"
        attributes = self.storage.group_attributes([self._root])[0]
        if attributes is None and str(size) in self.storage.child_names(ALL_VIEWS):
            raise StoreError(
                f"{location}: expected a view of size {size} resampled as the masks are ({RESAMPLING}), found one of "
                f"another rule in {ALL_VIEWS}/{size}; run `semires cache view {location} --size {size}` to rebuild it"
            )
        if attributes is None:
            sizes = ", ".join(self.storage.child_names(VIEWS)) or "no view"
            raise StoreError(
                f"{location}: expected a view of size {size}, found {sizes}; "
                f"run `semires cache view {location} --size {size}` to derive it"
            )
        _check_attributes(self.storage, size, attributes)
        self._indices = read_indices(self.storage, f"{self._root}/{PARTS}")
        self.index = ImageIndex(self._indices)
        self._bits: dict[str, Column] = {}

    def bits(self, part: str) -> Column:
        if part not in self._bits:
            checksum = self._indices[part].columns.get("bits")
            self._bits[part] = self.storage.open_column(f"{self._root}/{PARTS}/{part}/bits", checksum)
        return self._bits[part]

    def is_outdated(self) -> bool:
        """Whether a part that was there is gone."""
        return None in self.storage.group_attributes([f"{self._root}/{PARTS}/{name}" for name in self._indices])
