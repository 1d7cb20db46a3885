"""A Zarr v3 hierarchy at a location: groups and columns, written, listed and opened.

A location is a local path or any URL that fsspec understands. Columns are sharded arrays, compressed (see codec.py) and
crc32c checked, each written at once and never changed. Groups are written after their columns: metadata of a group is
one object, so it is there whole or not at all, and its presence says that everything below it is.
"""

from __future__ import annotations

import contextlib
import json
import zlib
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec
from zarr.core.array_spec import ArrayConfigLike
from zarr.errors import ContainsArrayError
from zarr.storage import StorePath

from semires.cache.errors import DamageError, StoreError
from semires.cache.storage.access import listing, writing
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.columns import Column
from semires.cache.storage.documents import (
    CONCURRENT_READS,
    METADATA,
    consolidated_paths,
    group_document,
    parse_group,
    present,
    read_documents,
)
from semires.cache.storage.local import LocalFiles, is_debris
from semires.cache.storage.remote import RemoteStore, UnlistedError, zarr_store
from semires.cache.storage.shards import ShardWriter


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
        self._files = zarr_store(location, read_only=not writable)
        root = self._documents([""])[0]
        try:
            if root is None:
                raise FileNotFoundError
            zarr.open_group(self._files, mode="r", zarr_format=3)
        except StoreError:
            raise
        except (OSError, ValueError) as error:
            reason = "nothing" if isinstance(error, FileNotFoundError) else f"{type(error).__name__}: {error}"
            raise StoreError(
                f"{location}: expected a candidate store, found {reason}; "
                "correct the location, or write the store with `semires cache-sam`"
            ) from error
        # Zarr's parser overlooks some damage, ours does not.
        self.attributes: dict[str, Any] = parse_group(location, root)
        self._consolidated = consolidated_paths(location, root)
        self._promised: set[str] = set()

    @classmethod
    def salvage(cls, location: str, *, writable: bool = False) -> Storage:
        """Open what is at `location` even where the root group's metadata is damaged or missing; `attributes` is {}.

        Raises StoreError where the location cannot be reached, or cannot be written where that is asked.
        """
        storage = cls._of(zarr_store(location, read_only=not writable), location)
        if writable and isinstance(storage._files, RemoteStore):
            storage._files.check_writable()
        root = storage._documents([""])[0]
        with contextlib.suppress(DamageError):
            storage._consolidated = None if root is None else consolidated_paths(location, root)
        return storage

    @classmethod
    def create(cls, location: str, attributes: dict[str, Any]) -> Storage:
        """Create the root group with `attributes`, or open the one that is there as it is.

        A location that holds something else is refused with StoreError: nothing foreign is written between.
        """
        try:
            if not _holds_group(location):  # where another writer is faster, its group stays
                cls._of(zarr_store(location, read_only=False), location).write_group("", attributes)
        except ContainsArrayError as error:
            raise StoreError(f"{location}: expected a candidate store or nothing, found a Zarr array") from error
        except OSError as error:
            raise StoreError(f"{location}: expected a location that can be written, found: {error}") from error
        return cls(location, writable=True)

    @classmethod
    def _of(cls, files: LocalFiles | RemoteStore, location: str) -> Storage:
        storage = cls.__new__(cls)
        storage.location = location
        storage.attributes = {}
        storage._files = files
        storage._consolidated = None
        storage._promised = set()
        return storage

    def child_names(self, path: str) -> list[str]:
        """Sorted names directly under `path`, finished or not; empty where `path` is not there.

        Of a server that lists nothing, what zarr.consolidate_metadata noted down in the root group counts; StoreError
        where it did not.
        """
        try:
            with listing(self._name(path)):
                names = self._files.names(path)
        except UnlistedError:
            if self._consolidated is None:
                raise
            above = f"{path}/" if path else ""
            names = [each.removeprefix(above).split("/")[0] for each in self._consolidated if each.startswith(above)]
            self._promised.update(f"{above}{name}" for name in names)
        # The group's own metadata, what file managers leave (.DS_Store) and what is left where a writer is killed while
        # it writes a file are no children.
        return sorted({name for name in names if name not in ("", METADATA) and name[0] != "." and not is_debris(name)})

    def group_attributes(self, paths: list[str]) -> list[dict[str, Any] | None]:
        """Attributes of the groups at `paths`, None for each whose metadata is not there (yet).

        One small read a group: 1,000 local groups in 0.05 s, six times faster than through zarr's own group objects.
        StoreError where the root group names one that is gone, of a server that lists nothing.
        """
        found = list(zip(paths, self._documents(paths), strict=True))
        for path, document in found:
            if document is None and path in self._promised:
                raise StoreError(
                    f"{self._name(path)}: expected what the root group's consolidated metadata lists, found nothing; "
                    "run zarr.consolidate_metadata anew on the store where it was written"
                )
        return [None if document is None else parse_group(self._name(path), document) for path, document in found]

    def column_checksums(self, path: str, names: Iterable[str]) -> dict[str, int]:
        """CRC-32 of the metadata of each array directly under `path`, by name, as it is in the store now."""
        paths = {name: f"{path}/{name}" for name in names}
        documents = self._documents(list(paths.values()))
        return {
            name: zlib.crc32(present(self._name(paths[name]), document))
            for name, document in zip(paths, documents, strict=True)
        }

    def _documents(self, paths: list[str]) -> list[bytes | None]:
        return read_documents(self._files, paths, [self._name(path) for path in paths])

    def write_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group at `path`, and of its parents where they have none; the last step.

        All that this object wrote below is on the disk before, the metadata after it: a power cut takes both or none.
        A group that is there already stays: whoever wrote it wrote the same.
        """
        with writing(self._name(path)):
            self._files.sync_below(path)
            above = [str(each).removeprefix(".") for each in reversed(PurePosixPath(path).parents)]
            found = self._documents(above)
            if found:
                self._forget_consolidated(found[0])
            for parent in [parent for parent, document in zip(above, found, strict=True) if document is None]:
                self._put_group(parent, {}, replace=False)
            self._put_group(path, attributes, replace=False)

    def rewrite_group(self, path: str, attributes: dict[str, Any]) -> None:
        """Write the metadata of the group at `path` (the root: "") in place of what is there, damaged or not."""
        with writing(self._name(path)):
            self._put_group(path, attributes, replace=True)
        if not path:
            self.attributes, self._consolidated = attributes, None

    def _put_group(self, path: str, attributes: dict[str, Any], *, replace: bool) -> None:
        self._files.put(_key(path), [group_document(attributes)], replace=replace, durable=True)

    def _forget_consolidated(self, root: bytes | None) -> None:
        """Drop the copy of all metadata from the root's document: changes make it a wrong one, which zarr believes."""
        if root is not None and consolidated_paths(self.location, root) is not None:
            self.rewrite_group("", parse_group(self.location, root))

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
    ) -> ShardWriter:
        """Create an array to be filled row by row, or anew the one an interrupted or parallel run left.

        `rows_per_chunk` (what one read decompresses) and `rows_per_shard` (one file or object) count along axis 0 and
        are cut to the rows there are. `period` is the number of bytes after which the data resembles itself, which
        some codecs use (1: unknown).
        """
        rows_per_chunk = max(1, min(rows_per_chunk, shape[0]))
        wanted = max(1, min(rows_per_shard, shape[0]))
        rows_per_shard = -(-wanted // rows_per_chunk) * rows_per_chunk
        # In memory, and only its metadata goes to the store: zarr would write some of the parents too, and an
        # unfinished part would look like a finished one.
        made: dict[str, Any] = {}
        zarr.create_array(
            made,
            shape=shape,
            dtype=dtype,
            chunks=(rows_per_chunk, *shape[1:]),
            shards=(rows_per_shard, *shape[1:]),
            compressors=[codec.for_period(period), Crc32cCodec()],
            fill_value=0,
            zarr_format=3,
        )
        document = made[METADATA].to_bytes()
        with writing(self._name(path)):
            if not self._files.put(_key(path), [document], replace=False):
                # An interrupted or parallel run may have chosen another codec: with that it goes on.
                document = present(self._name(path), self._documents([path])[0])
        # An all-zero shard is written like any other: one that is not there is a loss, never data.
        config: ArrayConfigLike = {"write_empty_chunks": True}
        array = zarr.Array.from_dict(StorePath(self._files, path), json.loads(document)).with_config(config)
        return ShardWriter(array, self._files.put)

    def write_column(
        self,
        path: str,
        data: NDArray[Any] | Sequence[NDArray[Any]],
        *,
        rows_per_chunk: int,
        codec: Codec = DEFAULT_CODEC,
        period: int | None = None,
    ) -> None:
        """Write `data`, whole or in pieces along axis 0, as one shard.

        `period` is as in `new_column`, by default the bytes of one number.
        """
        pieces = [data] if isinstance(data, np.ndarray) else data
        num_rows = sum(map(len, pieces))
        column = self.new_column(
            path,
            shape=(num_rows, *pieces[0].shape[1:]),
            dtype=pieces[0].dtype,
            rows_per_chunk=rows_per_chunk,
            rows_per_shard=num_rows,
            codec=codec,
            period=pieces[0].dtype.itemsize if period is None else period,
        )
        with writing(self._name(path)):
            for piece in pieces:
                column.append(piece)
            column.close()

    def open_column(self, path: str, checksum: int | None = None) -> Column:
        """Open the array at `path` for reading; DamageError where it or one of its shards is missing.

        `checksum` is what `column_checksums` said when the array was written (None: unknown, not compared). Zarr would
        believe whatever the metadata says, e.g. another shape.
        """
        name = self._name(path)
        document = present(name, self._documents([path])[0])
        return Column.open(name, StorePath(self._files, path), document, checksum)

    def read_slices(self, slices: Sequence[tuple[Column, int, int]]) -> list[NDArray[Any]]:
        """Rows from start to stop of each column; all at once where each waits for a network."""
        if len(slices) == 1 or isinstance(self._files, LocalFiles):
            return [column.read(start, stop) for column, start, stop in slices]
        with ThreadPoolExecutor(min(len(slices), CONCURRENT_READS) or 1) as pool:
            return list(pool.map(lambda each: each[0].read(each[1], each[2]), slices))

    def delete_group(self, path: str) -> None:
        """Delete everything at `path`, metadata first: an interrupted deletion leaves nothing that looks finished.

        Another process that deletes the same at the same time is no obstacle.
        """
        # A listing is a server's word: it must not turn the deletion of a part into that of all.
        assert all(name not in ("", ".", "..") for name in path.split("/")), path
        with writing(self._name(path)):
            self._forget_consolidated(self._documents([""])[0])
            self._files.delete_all(path)

    def num_bytes(self, path: str) -> int | None:
        """Bytes stored below `path`, as far as other processes leave them alone; None where a server does not tell."""
        with listing(self._name(path)):
            return self._files.num_bytes(path)

    def _name(self, path: str) -> str:
        """What messages call `path`."""
        return f"{self.location}/{path}".rstrip("/")


def _key(path: str) -> str:
    """Key of the document of the group or array at `path`."""
    return f"{path}/{METADATA}".lstrip("/")


def _holds_group(location: str) -> bool:
    """Whether a Zarr group is at `location`; StoreError where other files are."""
    files = zarr_store(location, read_only=True)
    try:
        zarr.open_group(files, mode="r", zarr_format=3)
    except StoreError:
        raise
    except FileNotFoundError:
        # A local folder may be there, made by hand and empty; with files in it, it is somebody's own.
        names = files.names("") if isinstance(files, LocalFiles) else []
        if METADATA in names:  # another writer created the store between the two looks
            return True
        if not all(map(is_debris, names)):
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
