"""A Zarr v3 hierarchy at a location: the only module that talks to zarr.

A location is a local path or any URL that fsspec understands. Columns are sharded arrays, zstd compressed and crc32c
checked, each written at once and never changed. Groups are written after their columns: metadata of a group is one
object, so it is there whole or not at all, and its presence says that everything below it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.buffer.cpu import buffer_prototype
from zarr.codecs import Crc32cCodec, ZstdCodec
from zarr.core.array_spec import ArrayConfigLike
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import LocalStore

from semires.cache.errors import RESTORE, StoreError

_METADATA = "zarr.json"
# Higher levels gain 3 % on candidate masks, lower ones lose nothing but read no faster.
_ZSTD_LEVEL = 3
# Enough for an object store's latency; a local store is read without any of this.
_CONCURRENT_READS = 64


def normalize_location(location: str | Path) -> str:
    """The location as a path or URL without a trailing slash; a file URL becomes a path.

    zarr's own store for local paths writes each file atomically and makes folders, fsspec's does neither.
    """
    return str(location).removeprefix("file://").rstrip("/")


class Storage:
    """One hierarchy, opened for reading, or for reading and writing.

    `location` comes from `normalize_location`. Raises StoreError where no Zarr group is there, or none that
    can be read.
    """

    def __init__(self, location: str, *, writable: bool = False) -> None:
        self.location = location
        try:
            group = zarr.open_group(location, mode="r+" if writable else "r", zarr_format=3)
        except (OSError, ValueError, ImportError) as error:
            reason = "nothing" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
            raise StoreError(
                f"{location}: expected a candidate store, found {reason}; "
                "correct the location, or write the store with `semires cache-sam`"
            ) from error
        self.attributes: dict[str, Any] = dict(group.attrs)
        self._store: Store = group.store
        self._prefix = f"{group.path}/" if group.path else ""

    @classmethod
    def create(cls, location: str, attributes: dict[str, Any]) -> Storage:
        """Create the root group with `attributes`, or open the one that is there as it is.

        A location that holds something else is refused with StoreError: nothing foreign is written between.
        """
        try:
            if not _holds_group(location):
                with contextlib.suppress(ContainsGroupError):  # another writer was faster
                    zarr.create_group(location, attributes=attributes, zarr_format=3)
        except ContainsArrayError as error:
            raise StoreError(f"{location}: expected a candidate store or nothing, found a Zarr array") from error
        except (OSError, ImportError) as error:
            raise StoreError(f"{location}: expected a location that can be written, found: {error}") from error
        return cls(location, writable=True)

    def child_names(self, path: str) -> list[str]:
        """Sorted names directly under `path`, finished or not; empty where `path` is not there."""
        names = sync(_collect(self._store.list_dir(f"{self._prefix}{path}")))
        # The group's own metadata and what file managers leave (.DS_Store) are no children.
        return sorted(name for name in names if name != _METADATA and not name.startswith("."))

    def group_attributes(self, paths: list[str]) -> list[dict[str, Any] | None]:
        """Attributes of the groups at `paths`, None for each whose metadata is not there (yet).

        One small read a group: 1,000 local groups in 0.05 s, six times faster than through zarr's own group objects.
        """
        keys = [f"{self._prefix}{path}/{_METADATA}" for path in paths]
        if isinstance(self._store, LocalStore):
            documents = [_read_file(self._store.root / key) for key in keys]
        else:
            documents = sync(_read_all(self._store, keys))
        return [
            None if document is None else _parse_group(f"{self.location}/{path}", document)
            for path, document in zip(paths, documents, strict=True)
        ]

    def write_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group at `path`, and of its parents where they have none; the last step.

        A group that is there already stays: whoever wrote it wrote the same.
        """
        with contextlib.suppress(ContainsGroupError):
            zarr.create_group(self._store, path=f"{self._prefix}{path}", attributes=attributes, zarr_format=3)

    def new_column(
        self, path: str, *, shape: tuple[int, ...], dtype: np.dtype[Any], rows_per_chunk: int, rows_per_shard: int
    ) -> zarr.Array[Any]:
        """Create an array to be filled in whole shards, or open the one an interrupted or parallel run left.

        `rows_per_chunk` (what one read decompresses) and `rows_per_shard` (one file or object) count along axis 0 and
        are cut to the rows there are.
        """
        rows_per_chunk = max(1, min(rows_per_chunk, shape[0]))
        wanted = max(1, min(rows_per_shard, shape[0]))
        rows_per_shard = -(-wanted // rows_per_chunk) * rows_per_chunk
        # Addressed by its own location: through the store's root zarr would also write metadata of the parents, and an
        # unfinished part would look like a finished one.
        location = f"{self.location}/{path}"
        # An all-zero shard is written like any other: one that is not there is a loss, never data.
        config: ArrayConfigLike = {"write_empty_chunks": True}
        try:
            return zarr.create_array(
                location,
                shape=shape,
                dtype=dtype,
                chunks=(rows_per_chunk, *shape[1:]),
                shards=(rows_per_shard, *shape[1:]),
                compressors=[ZstdCodec(level=_ZSTD_LEVEL), Crc32cCodec()],
                fill_value=0,
                zarr_format=3,
                config=config,
            )
        except ContainsArrayError:
            return zarr.open_array(location, mode="r+", zarr_format=3).with_config(config)

    def write_column(self, path: str, data: NDArray[Any], *, rows_per_chunk: int) -> None:
        """Write `data` as one shard."""
        column = self.new_column(
            path, shape=data.shape, dtype=data.dtype, rows_per_chunk=rows_per_chunk, rows_per_shard=len(data)
        )
        if len(data):
            column[...] = data

    def open_column(self, path: str) -> Column:
        """Open the array at `path` for reading; StoreError where it or one of its shards is missing."""
        try:
            array = zarr.open_array(self._store, path=f"{self._prefix}{path}", mode="r", zarr_format=3)
        except (OSError, ValueError) as error:
            raise _damaged(f"{self.location}/{path}", error) from error
        # zarr reads a missing shard as zeros; masks that silently vanish would spoil a training run.
        rows_per_shard = (array.shards or array.chunks)[0]
        axes = "/0" * (array.ndim - 1)
        keys = [f"{self._prefix}{path}/c/{index}{axes}" for index in range(-(-array.shape[0] // rows_per_shard))]
        for key, exists in zip(keys, sync(_exist(self._store, keys)), strict=True):
            if not exists:
                raise _damaged(f"{self.location}/{path}", FileNotFoundError(f"{key} is missing"))
        return Column(f"{self.location}/{path}", array)

    def delete_group(self, path: str) -> None:
        """Delete everything at `path`, metadata first: an interrupted deletion leaves nothing that looks finished."""
        sync(self._store.delete(f"{self._prefix}{path}/{_METADATA}"))
        sync(self._store.delete_dir(f"{self._prefix}{path}"))

    def replace_attributes(self, attributes: dict[str, Any]) -> None:
        """Replace the attributes of the root group."""
        zarr.open_group(self._store, path=self._prefix.rstrip("/"), mode="r+").attrs.put(attributes)
        self.attributes = attributes

    def num_bytes(self, path: str) -> int:
        """Bytes stored below `path`."""
        if isinstance(self._store, LocalStore):
            walk = os.walk(self._store.root / self._prefix / path)
            return sum(os.path.getsize(os.path.join(folder, name)) for folder, _, names in walk for name in names)
        return sync(self._store.getsize_prefix(f"{self._prefix}{path}"))


class Column:
    """One array of the hierarchy, read by plain slices along axis 0 (fancy indexing is ten times slower in zarr 3)."""

    def __init__(self, path: str, array: zarr.Array[Any]) -> None:
        self._path = path
        self._array = array

    def __len__(self) -> int:
        return self._array.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows `start` to `stop` (all rows by default); StoreError where bytes are damaged or rows are missing."""
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise _damaged(self._path, IndexError(f"rows {start} to {stop} asked, {len(self)} there"))
        try:
            return np.asarray(self._array[start:stop])
        except (OSError, ValueError, RuntimeError) as error:
            raise _damaged(self._path, error) from error


def _damaged(path: str, error: Exception) -> StoreError:
    return StoreError(f"{path}: expected an intact column, found {type(error).__name__}: {error}; {RESTORE}")


def _holds_group(location: str) -> bool:
    """Whether a Zarr group is at `location`; StoreError where other files are."""
    try:
        zarr.open_group(location, mode="r", zarr_format=3)
    except FileNotFoundError:
        # A local folder may be there, made by hand and empty; with files in it, it is somebody's own.
        if os.path.isdir(location) and os.listdir(location):
            raise StoreError(
                f"{location}: expected a candidate store, an empty folder or nothing, found other files; "
                "choose another location"
            ) from None
        return False
    except ValueError as error:
        raise StoreError(
            f"{location}: expected a candidate store or nothing, found metadata that cannot be read ({error}); "
            "choose another location, or delete it"
        ) from error
    return True


def _parse_group(path: str, document: bytes) -> dict[str, Any]:
    try:
        parsed = json.loads(document)
        attributes = parsed["attributes"] if parsed["node_type"] == "group" else None
    except (ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error
    if not isinstance(attributes, dict):
        raise _damaged(path, ValueError("not the metadata of a group"))
    return attributes


def _read_file(path: os.PathLike[str]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None


async def _read_all(store: Store, keys: list[str]) -> list[bytes | None]:
    limit = asyncio.Semaphore(_CONCURRENT_READS)

    async def read(key: str) -> bytes | None:
        async with limit:
            buffer = await store.get(key, buffer_prototype)
        return None if buffer is None else buffer.to_bytes()

    return await asyncio.gather(*(read(key) for key in keys))


async def _exist(store: Store, keys: list[str]) -> list[bool]:
    return await asyncio.gather(*(store.exists(key) for key in keys))


async def _collect(names: AsyncIterator[str]) -> list[str]:
    # Some stores list files with their folder's slash.
    return [name.rstrip("/") async for name in names]
