"""A Zarr v3 hierarchy at a location: groups and columns, written, listed and opened.

A location is a local path or any URL that fsspec understands. Columns are sharded arrays, compressed (see codec.py) and
crc32c checked, each written at once and never changed. Groups are written after their columns: metadata of a group is
one object, so it is there whole or not at all, and its presence says that everything below it is.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import AsyncIterator, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.abc.store import Store
from zarr.codecs import Crc32cCodec
from zarr.core.array_spec import ArrayConfigLike
from zarr.core.sync import sync
from zarr.errors import ContainsArrayError, ContainsGroupError
from zarr.storage import LocalStore, StorePath

from semires.cache.errors import StoreError
from semires.cache.storage.access import listing, writing
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.columns import Column
from semires.cache.storage.documents import CONCURRENT_READS, METADATA, parse_group, present, read_documents
from semires.cache.storage.remote import is_url, zarr_store

# Of a deletion that another process does too; it fails at most once a file that the other was faster at.
_DELETE_TRIES = 1000


def normalize_location(location: str | Path) -> str:
    """The location as a path or URL without a trailing slash; a file URL becomes a path.

    zarr's own store for local paths writes each file atomically and makes folders, fsspec's does neither.
    StoreError where only a protocol or nothing at all is given.
    """
    normalized = str(location).removeprefix("file://").rstrip("/")
    if not normalized or normalized.endswith(":"):
        raise StoreError(f"expected the path or URL of a candidate store, found {str(location)!r}; name one")
    return normalized


class Storage:
    """One hierarchy, opened for reading, or for reading and writing.

    `location` comes from `normalize_location`. Raises StoreError where no Zarr group is there, or none that
    can be read.
    """

    def __init__(self, location: str, *, writable: bool = False) -> None:
        self.location = location
        try:
            root = zarr_store(location, read_only=not writable)
            group = zarr.open_group(root, mode="r+" if writable else "r", zarr_format=3)
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            reason = "nothing" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
            raise StoreError(
                f"{location}: expected a candidate store, found {reason}; "
                "correct the location, or write the store with `semires cache-sam`"
            ) from error
        self.attributes: dict[str, Any] = dict(group.attrs)
        self._store: Store = group.store
        self._prefix = f"{group.path}/" if group.path else ""
        # Zarr's parser overlooks some damage, ours does not.
        self.group_attributes([""])

    @classmethod
    def salvage(cls, location: str, *, writable: bool = False) -> Storage:
        """Open what is at `location` even where the root group's metadata is damaged or missing; `attributes` is {}.

        Raises StoreError where the location cannot be reached.
        """
        storage = cls.__new__(cls)
        storage.location = location
        storage.attributes = {}
        root = zarr_store(location, read_only=not writable)
        storage._store = LocalStore(root, read_only=not writable) if isinstance(root, Path) else root
        storage._prefix = ""
        return storage

    @classmethod
    def create(cls, location: str, attributes: dict[str, Any]) -> Storage:
        """Create the root group with `attributes`, or open the one that is there as it is.

        A location that holds something else is refused with StoreError: nothing foreign is written between.
        """
        try:
            if not _holds_group(location):
                with contextlib.suppress(ContainsGroupError):  # another writer was faster
                    root = zarr_store(location, read_only=False)
                    zarr.create_group(root, attributes=attributes, zarr_format=3)
        except ContainsArrayError as error:
            raise StoreError(f"{location}: expected a candidate store or nothing, found a Zarr array") from error
        except OSError as error:
            raise StoreError(f"{location}: expected a location that can be written, found: {error}") from error
        return cls(location, writable=True)

    def child_names(self, path: str) -> list[str]:
        """Sorted names directly under `path`, finished or not; empty where `path` is not there."""
        if isinstance(self._store, LocalStore):
            names: list[str] = []
            with listing(self._name(path)), contextlib.suppress(FileNotFoundError, NotADirectoryError):
                names = os.listdir(self._store.root / self._prefix / path)
        else:
            names = sync(_collect(self._store.list_dir(f"{self._prefix}{path}")))
        # The group's own metadata, what file managers leave (.DS_Store) and what zarr leaves where it is killed while
        # it writes a file are no children.
        return sorted(name for name in names if name != METADATA and not name.startswith(".") and not _is_debris(name))

    def group_attributes(self, paths: list[str]) -> list[dict[str, Any] | None]:
        """Attributes of the groups at `paths`, None for each whose metadata is not there (yet).

        One small read a group: 1,000 local groups in 0.05 s, six times faster than through zarr's own group objects.
        """
        return [
            None if document is None else parse_group(self._name(path), document)
            for path, document in zip(paths, self._documents(paths), strict=True)
        ]

    def column_checksums(self, path: str, names: Iterable[str]) -> dict[str, int]:
        """CRC-32 of the metadata of each array directly under `path`, by name, as it is in the store now."""
        paths = {name: f"{path}/{name}" for name in names}
        documents = self._documents(list(paths.values()))
        return {
            name: zlib.crc32(present(self._name(paths[name]), document))
            for name, document in zip(paths, documents, strict=True)
        }

    def _documents(self, paths: list[str]) -> list[bytes | None]:
        names = [self._name(path) for path in paths]
        return read_documents(self._store, [f"{self._prefix}{path}" for path in paths], names)

    def write_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group at `path`, and of its parents where they have none; the last step.

        A group that is there already stays: whoever wrote it wrote the same.
        """
        with writing(self._name(path)), contextlib.suppress(ContainsGroupError):
            zarr.create_group(self._store, path=f"{self._prefix}{path}", attributes=attributes, zarr_format=3)

    def rewrite_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group at `path` (the root: "") in place of what is there, damaged or not."""
        zarr_path = f"{self._prefix}{path}"
        with writing(self._name(path)):
            sync(self._store.delete(f"{zarr_path}/{METADATA}".lstrip("/")))
            zarr.create_group(self._store, path=zarr_path, attributes=attributes, zarr_format=3)

    def new_column(
        self,
        path: str,
        *,
        shape: tuple[int, ...],
        dtype: np.dtype[Any],
        rows_per_chunk: int,
        rows_per_shard: int,
        codec: Codec,
        period: int,
    ) -> zarr.Array[Any]:
        """Create an array to be filled in whole shards, or open the one an interrupted or parallel run left.

        `rows_per_chunk` (what one read decompresses) and `rows_per_shard` (one file or object) count along axis 0 and
        are cut to the rows there are. `period` is the number of bytes after which the data resembles itself, which
        some codecs use (1: unknown).
        """
        rows_per_chunk = max(1, min(rows_per_chunk, shape[0]))
        wanted = max(1, min(rows_per_shard, shape[0]))
        rows_per_shard = -(-wanted // rows_per_chunk) * rows_per_chunk
        # Addressed by its own location: through the store's root zarr would also write metadata of the parents, and an
        # unfinished part would look like a finished one.
        location = zarr_store(f"{self.location}/{path}", read_only=False)
        # An all-zero shard is written like any other: one that is not there is a loss, never data.
        config: ArrayConfigLike = {"write_empty_chunks": True}
        with writing(self._name(path)):
            try:
                return zarr.create_array(
                    location,
                    shape=shape,
                    dtype=dtype,
                    chunks=(rows_per_chunk, *shape[1:]),
                    shards=(rows_per_shard, *shape[1:]),
                    compressors=[codec.for_period(period), Crc32cCodec()],
                    fill_value=0,
                    zarr_format=3,
                    config=config,
                )
            except ContainsArrayError:
                return zarr.open_array(location, mode="r+", zarr_format=3).with_config(config)

    def write_column(
        self,
        path: str,
        data: NDArray[Any],
        *,
        rows_per_chunk: int,
        codec: Codec = DEFAULT_CODEC,
        period: int | None = None,
    ) -> None:
        """Write `data` as one shard; `period` as in `new_column`, by default the bytes of one number."""
        column = self.new_column(
            path,
            shape=data.shape,
            dtype=data.dtype,
            rows_per_chunk=rows_per_chunk,
            rows_per_shard=len(data),
            codec=codec,
            period=data.dtype.itemsize if period is None else period,
        )
        if len(data):
            with writing(self._name(path)):
                column[...] = data

    def open_column(self, path: str, checksum: int | None = None) -> Column:
        """Open the array at `path` for reading; DamageError where it or one of its shards is missing.

        `checksum` is what `column_checksums` said when the array was written (None: unknown, not compared). Zarr would
        believe whatever the metadata says, e.g. another shape.
        """
        name = self._name(path)
        document = present(name, self._documents([path])[0])
        return Column.open(name, StorePath(self._store, f"{self._prefix}{path}"), document, checksum)

    def read_slices(self, slices: Sequence[tuple[Column, int, int]]) -> list[NDArray[Any]]:
        """Rows from start to stop of each column; all at once where each waits for a network."""
        if len(slices) == 1 or isinstance(self._store, LocalStore):
            return [column.read(start, stop) for column, start, stop in slices]
        with ThreadPoolExecutor(min(len(slices), CONCURRENT_READS) or 1) as pool:
            return list(pool.map(lambda each: each[0].read(each[1], each[2]), slices))

    def delete_group(self, path: str) -> None:
        """Delete everything at `path`, metadata first: an interrupted deletion leaves nothing that looks finished.

        Another process that deletes the same at the same time is no obstacle.
        """
        with writing(self._name(path)):
            for tries_left in reversed(range(_DELETE_TRIES)):
                try:
                    sync(self._store.delete(f"{self._prefix}{path}/{METADATA}"))
                    sync(self._store.delete_dir(f"{self._prefix}{path}"))
                    return
                except FileNotFoundError:  # the other took a file first; each time there are fewer
                    if not tries_left:
                        raise

    def replace_attributes(self, attributes: dict[str, Any]) -> None:
        """Replace the attributes of the root group."""
        with writing(self.location):
            zarr.open_group(self._store, path=self._prefix.rstrip("/"), mode="r+").attrs.put(attributes)
        self.attributes = attributes

    def num_bytes(self, path: str) -> int:
        """Bytes stored below `path`; files that a writer renames or deletes meanwhile count or do not."""
        if not isinstance(self._store, LocalStore):
            return sync(self._store.getsize_prefix(f"{self._prefix}{path}"))
        total = 0
        with listing(self._name(path)):
            for folder, _, names in os.walk(self._store.root / self._prefix / path):
                for name in names:
                    with contextlib.suppress(FileNotFoundError):
                        total += os.path.getsize(os.path.join(folder, name))
        return total

    def _name(self, path: str) -> str:
        """What messages call `path`."""
        return f"{self.location}/{path}".rstrip("/")


def _is_debris(name: str) -> bool:
    """Whether a file is the unfinished one of an atomic write that was killed (zarr's LocalStore names it so)."""
    return name.endswith(".partial")


def _holds_group(location: str) -> bool:
    """Whether a Zarr group is at `location`; StoreError where other files are."""
    try:
        zarr.open_group(zarr_store(location, read_only=True), mode="r", zarr_format=3)
    except StoreError:
        raise
    except FileNotFoundError:
        # A local folder may be there, made by hand and empty; with files in it, it is somebody's own.
        names = os.listdir(location) if not is_url(location) and os.path.isdir(location) else []
        if METADATA in names:  # another writer created the store between the two looks
            return True
        if not all(map(_is_debris, names)):
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


async def _collect(names: AsyncIterator[str]) -> list[str]:
    # Some stores list files with their folder's slash.
    return [name.rstrip("/") async for name in names]
