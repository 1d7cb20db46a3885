"""Parts: what one commit wrote, immutable; their columns, their index, and how they are written.

    parts/<name>/                    attributes: the index (PartIndex); written after the columns
        image_id     int64 [I]       size int32 [I, 2]  height, width
        mask_offset  int64 [I + 1]   rows of the mask columns that belong to image i
        byte_offset  int64 [I + 1]   bytes of `bits` that belong to image i
        bits         uint8 [B]       packed rows (see bits.py), native resolution
        area         int32 [M]       box_xyxy int32 [M, 4]
        predicted_iou, stability_score float32 [M]   point_xy float32 [M, 2], NaN where no point was asked

The first four columns describe the part to any Zarr reader, under checksum. The index in the attributes repeats them so
that a store opens with one small read a part, where the columns would take twelve; `check_columns` holds both equal.
The attributes also hold a checksum of themselves and of each column's metadata, which zarr reads unchecked: a flipped
digit is an error, never another mask. Two keys are there only where they are known: `origin`, whose images these are,
and `files`, records of the images' files and of the words that they were searched for (files.py). Releases that do not
know them read the part as well.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.errors import RESTORE, DamageError
from semires.cache.files import FileRecord, FileRecords
from semires.cache.schema import CHECKSUM, PARTS, checksum, sealed
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.hierarchy import Storage

# What one read of a slice decompresses at most beyond the slice: 1 MiB of packed bits is a quarter of an image. Half of
# it would read an image in 4.0 instead of 5.2 ms; it showed in writing while that went through zarr.
_BYTES_PER_CHUNK = 2**20
_ROWS_PER_CHUNK = 2**14
_ABANDONED_AFTER = timedelta(hours=1)
_NAME_FORMAT = "%Y%m%dT%H%M%S%f"
_LISTS = ("image_id", "height", "width", "masks_per_image")
_MAX_ORIGIN_LENGTH = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class PartIndex:
    """Which images a part holds and where; all arrays int64 [I], in the order of the part's rows."""

    image_id: NDArray[np.int64]
    """Ids of the images, distinct."""
    height: NDArray[np.int64]
    """Image heights in pixels."""
    width: NDArray[np.int64]
    """Image widths in pixels."""
    masks_per_image: NDArray[np.int64]
    """Candidates of each image; may be 0."""
    columns: Mapping[str, int] = field(default_factory=dict)
    """CRC-32 of each column's metadata document by the column's name; none before the columns are written."""
    origin: str = ""
    """Whose images these are, in the writer's words: two origins may have the same ids. "" where that is not known."""
    files: FileRecords | None = None
    """What is known of the images' files; of imported ones nothing is."""

    @classmethod
    def of(cls, images: Sequence[Candidates], files: Sequence[FileRecord | None] = (), origin: str = "") -> PartIndex:
        """The index of a part that holds `images` in this order, made of `files` (() where they are not known)."""
        rows = [(image.image_id, image.height, image.width, image.num_masks) for image in images]
        columns = np.array(rows, np.int64).reshape(len(rows), 4).T
        return cls(
            image_id=columns[0],
            height=columns[1],
            width=columns[2],
            masks_per_image=columns[3],
            origin=origin,
            files=FileRecords.of(files) if any(files) else None,
        )

    @classmethod
    def from_attributes(cls, name: str, attributes: Mapping[str, Any]) -> PartIndex:
        """Parse the attributes of the part's group; DamageError names the part and the key that is wrong."""
        lists = {}
        for key in _LISTS:
            lists[key] = _parse_integers(name, key, attributes.get(key), minimum=_MINIMUM[key])
            if len(lists[key]) != len(lists["image_id"]):
                raise _bad_index(name, key, f"{len(lists['image_id'])} numbers", f"{len(lists[key])}")
        columns = attributes.get("columns")
        if not isinstance(columns, dict):
            raise _bad_index(name, "columns", "checksums by column", repr(columns)[:80])
        origin = attributes.get("origin", "")
        if not isinstance(origin, str) or len(origin) > _MAX_ORIGIN_LENGTH:
            raise _bad_index(name, "origin", f"a text of at most {_MAX_ORIGIN_LENGTH} characters", repr(origin)[:80])
        files = _parse_files(name, attributes.get("files"), len(lists["image_id"]))
        index = cls(**lists, columns=columns, origin=origin, files=files)
        for key, count in (("num_images", len(index.image_id)), ("num_masks", index.num_masks)):
            if attributes.get(key) != count:
                raise _bad_index(name, key, f"{count}", repr(attributes.get(key)))
        # Last, so that an error rather names the key. Nothing that was read in between is used before.
        if attributes.get(CHECKSUM) != checksum(attributes):
            raise _bad_index(name, CHECKSUM, f"{checksum(attributes)}", repr(attributes.get(CHECKSUM)))
        return index

    def to_attributes(self) -> dict[str, Any]:
        """The index as JSON-compatible group attributes: counts, lists, the columns' checksums and its own."""
        known: dict[str, Any] = {"origin": self.origin} if self.origin else {}
        if self.files is not None:
            known["files"] = self.files.to_json()
        counts = {"num_images": len(self.image_id), "num_masks": self.num_masks}
        lists = {key: getattr(self, key).tolist() for key in _LISTS}
        return sealed(counts | lists | {"columns": dict(self.columns)} | known)

    def file_of(self, row: int) -> FileRecord | None:
        """What is known of the file of the image at `row`."""
        return None if self.files is None else self.files[row]

    @property
    def num_masks(self) -> int:
        """M, the candidates of all images of the part."""
        return int(self.masks_per_image.sum())

    @cached_property
    def mask_offset(self) -> NDArray[np.int64]:
        """int64 [I + 1]: rows of the mask columns that belong to image i are mask_offset[i] to mask_offset[i + 1]."""
        return _offsets(self.masks_per_image)

    @cached_property
    def byte_offset(self) -> NDArray[np.int64]:
        """int64 [I + 1]: the same for the bytes of `bits`."""
        return _offsets(self.masks_per_image * self.height * ((self.width + 7) // 8))


_MINIMUM = {"image_id": -(2**63), "height": 1, "width": 1, "masks_per_image": 0}


def read_indices(storage: Storage, path: str = PARTS, skip: Collection[str] = ()) -> dict[str, PartIndex]:
    """Indices of the finished parts under `path` by name, sorted; those named in `skip` are not read again.

    A part whose group metadata is missing was never finished (or is being written) and does not exist. It may also just
    have been replaced by a part that was not there yet when the names were listed: then they are listed again.
    """
    indices: dict[str, PartIndex] = {}
    listed: set[str] = set()
    while True:
        names = [name for name in storage.child_names(path) if name not in skip and name not in indices]
        if listed and listed.issuperset(names):
            return {name: indices[name] for name in sorted(indices)}
        listed.update(names)
        found = dict(zip(names, storage.group_attributes([f"{path}/{name}" for name in names]), strict=True))
        for name, attributes in found.items():
            if attributes is not None:
                indices[name] = PartIndex.from_attributes(f"{storage.location}/{path}/{name}", attributes)
        if None not in found.values():
            return {name: indices[name] for name in sorted(indices)}


def new_part_name() -> str:
    """A name no other writer chooses: names sort by time, equal times differ by a random tail."""
    return f"{datetime.now(UTC):{_NAME_FORMAT}}-{secrets.token_hex(4)}"


def is_abandoned(name: str) -> bool:
    """Whether a part of this name that has no metadata was left by a writer that is gone: it was begun over an hour
    ago, and a part is written in seconds, on a slow network in minutes."""
    begun = named_at(name)
    return begun is not None and datetime.now(UTC) - begun > _ABANDONED_AFTER


def named_at(name: str) -> datetime | None:
    """When `new_part_name` made the name; None where another program did."""
    try:
        return datetime.strptime(name.split("-")[0], _NAME_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        return None


def write_part(
    storage: Storage,
    name: str,
    images: Sequence[Candidates],
    *,
    files: Sequence[FileRecord | None] = (),
    origin: str = "",
    codec: Codec = DEFAULT_CODEC,
) -> PartIndex:
    """Write `images` as the part `name`: columns first, each a whole shard, then the metadata: now the part exists.

    `files` and `origin` are what is known of the images, see PartIndex.
    """
    index = PartIndex.of(images, files, origin)
    path = f"{PARTS}/{name}"
    columns: dict[str, NDArray[Any] | list[NDArray[Any]]] = {
        **index_columns(index),
        "bits": [image.bits.reshape(-1) for image in images],
        "area": np.concatenate([image.area for image in images]),
        "box_xyxy": np.concatenate([image.boxes_xyxy for image in images]),
        "predicted_iou": np.concatenate([image.predicted_iou for image in images]),
        "stability_score": np.concatenate([image.stability_score for image in images]),
        "point_xy": np.concatenate([image.points_xy for image in images]),
    }
    row_lengths = {packed_length(image.width) for image in images if image.num_masks}
    # What the codec may use: rows of one length; nothing is known of bytes of several.
    period = row_lengths.pop() if len(row_lengths) == 1 else 1
    for column, data in columns.items():
        is_bits = column == "bits"
        storage.write_column(
            f"{path}/{column}",
            data,
            rows_per_chunk=_BYTES_PER_CHUNK if is_bits else _ROWS_PER_CHUNK,
            codec=codec,
            period=period if is_bits else None,
        )
    index = replace(index, columns=storage.column_checksums(path, columns))
    storage.write_group(path, index.to_attributes())
    return index


def index_columns(index: PartIndex) -> dict[str, NDArray[Any]]:
    """The columns that repeat the index: image_id, size, mask_offset and byte_offset."""
    return {
        "image_id": index.image_id,
        "size": np.stack([index.height, index.width], axis=1).astype(np.int32),
        "mask_offset": index.mask_offset,
        "byte_offset": index.byte_offset,
    }


def check_columns(storage: Storage, name: str, index: PartIndex) -> None:
    """Raise DamageError where the index in the attributes differs from the checksummed columns that repeat it."""
    for column, expected in index_columns(index).items():
        path = f"{PARTS}/{name}/{column}"
        if not np.array_equal(storage.open_column(path, index.columns.get(column)).read(), expected):
            raise DamageError(
                f"{storage.location}/{path}: expected the same numbers as in the part's attributes, found others; "
                f"{RESTORE}"
            )


def num_native_bytes(candidates: Candidates) -> int:
    """Bytes of `bits` that the candidates take."""
    return candidates.num_masks * candidates.height * packed_length(candidates.width)


def _offsets(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts, dtype=np.int64)])


def _parse_integers(name: str, key: str, value: object, *, minimum: int) -> NDArray[np.int64]:
    array = np.asarray(value) if isinstance(value, list) else None
    if array is None or array.ndim != 1 or (array.size and array.dtype.kind != "i"):
        raise _bad_index(name, key, "a list of integers", repr(value)[:80])
    array = array.astype(np.int64)
    if array.size and array.min() < minimum:
        raise _bad_index(name, key, f"integers from {minimum}", str(array.min()))
    return array


def _parse_files(name: str, value: object, num_images: int) -> FileRecords | None:
    if value is None:
        return None
    try:
        return FileRecords.from_json(value, num_images)
    except ValueError as error:
        raise _bad_index(name, "files", "records of image files", str(error)) from None


def _bad_index(name: str, key: str, expected: str, found: str) -> DamageError:
    return DamageError(f"{name}: attribute {key}: expected {expected}, found {found}; {RESTORE}")
