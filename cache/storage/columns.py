"""A column of a part: one array of the Zarr hierarchy, opened for reading."""

from __future__ import annotations

import asyncio
import json
import zlib
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, StorePath

from semires.cache.errors import StoreError
from semires.cache.storage.access import damaged, listing
from semires.cache.storage.documents import METADATA
from semires.cache.storage.shards import LocalShards, shard_key


class Column:
    """One array of the hierarchy, read by plain slices along axis 0 (fancy indexing is ten times slower in zarr 3)."""

    def __init__(self, path: str, array: zarr.Array[Any]) -> None:
        self._path = path
        self._array = array
        self._shards = LocalShards.of(array)

    @classmethod
    def open(cls, name: str, at: StorePath, document: bytes, checksum: int | None) -> Column:
        """The array at a place of a store whose metadata is `document`; messages call it `name`.

        DamageError where the document is not the one of `checksum` (None: not compared) or describes no array, and
        where a shard is missing; StoreError where an intact document is one that zarr cannot read.
        """
        if checksum is not None and zlib.crc32(document) != checksum:
            found = ValueError(f"{METADATA} with checksum {zlib.crc32(document)}, {checksum} was written")
            raise damaged(name, found)
        try:
            array = zarr.Array.from_dict(at, json.loads(document))
        except (KeyError, TypeError, ValueError) as error:
            if checksum is None:
                raise damaged(name, error) from error
            # As it was written, so no damage: another release of zarr wrote what this one does not know.
            raise StoreError(
                f"{name}: expected an array that zarr {zarr.__version__} can read, found "
                f"{type(error).__name__}: {error}; use the release of zarr that wrote it"
            ) from error
        # zarr reads a missing shard as zeros; masks that silently vanish would spoil a training run.
        rows_per_shard = (array.shards or array.chunks)[0]
        keys = [shard_key(array, index) for index in range(-(-array.shape[0] // rows_per_shard))]
        store = at.store
        if isinstance(store, LocalStore):  # a turn of zarr's event loop costs more than all the rest
            with listing(name):
                exist = [(store.root / key).exists() for key in keys]
        else:
            exist = sync(_exist(store, keys))
        for key, exists in zip(keys, exist, strict=True):
            if not exists:
                raise damaged(name, FileNotFoundError(f"{key} is missing"))
        return cls(name, array)

    def __len__(self) -> int:
        return self._array.shape[0]

    def read(self, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Rows `start` to `stop` (all rows by default); StoreError where bytes are damaged or rows are missing."""
        stop = len(self) if stop is None else stop
        if not 0 <= start <= stop <= len(self):
            raise damaged(self._path, IndexError(f"rows {start} to {stop} asked, {len(self)} there"))
        try:
            if self._shards is not None:
                return self._shards.read(start, stop)
            rows = np.asarray(self._array[start:stop])
            self._check_shards(rows, start)
            return rows
        except (OSError, ValueError, RuntimeError) as error:
            raise damaged(self._path, error) from error

    def _check_shards(self, rows: NDArray[Any], start: int) -> None:
        """Raise FileNotFoundError where a shard vanished after the column was opened: zarr reads it as zeros.

        A repair or an overwrite deletes parts under a running reader. Only zeros are suspicious, so only they cost a
        look.
        """
        rows_per_shard = (self._array.shards or self._array.chunks)[0]
        stop = start + len(rows)
        for index in range(start // rows_per_shard, -(-stop // rows_per_shard)):
            first, last = max(start, index * rows_per_shard), min(stop, (index + 1) * rows_per_shard)
            if first < last and not rows[first - start : last - start].any():
                key = shard_key(self._array, index)
                if not sync(self._array.store.exists(key)):
                    raise FileNotFoundError(f"{key} is missing")


async def _exist(store: Store, keys: list[str]) -> list[bool]:
    return await asyncio.gather(*(store.exists(key) for key in keys))
