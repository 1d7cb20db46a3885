"""Stores behind a URL: zarr's fsspec store, with errors in one line, fresh listings, and safe to use after a fork.

    s3://bucket/refcoco.zarr        with `pip install 'semires[remote]'`
    gs://…, abfs://…, …             with fsspec's package for it (gcsfs, adlfs, …)
    https://host/refcoco.zarr       to read; of a server that does not list folders a store with consolidated metadata
    zip://refcoco.zarr::a.zip       to read; zip://::a.zip where the store is all that is in the file
    memory://…                      in this process, for tests

Credentials, endpoints and other options come from where each file system looks for them: the environment
(AWS_ENDPOINT_URL, …), its own files, or fsspec's configuration (~/.config/fsspec).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from typing import Any, Self

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.buffer.cpu import Buffer as CpuBuffer
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.core.sync import sync
from zarr.storage import FsspecStore

from semires.cache.errors import StoreError
from semires.cache.storage.documents import METADATA
from semires.cache.storage.local import LocalFiles

# A listing that fsspec kept would hide the parts that other writers commit.
_OPTIONS = {"use_listings_cache": False}
_EXTRA = ("s3", "s3a")
_READ_ONLY = ("http", "https", "zip", "tar")
_NO_SIZES = ("http", "https")  # a page of links says nothing of what is behind them
_FORBIDDEN = (401, 403, 405)
# What a file system raises that cannot do what it was asked; no address or password helps.
_UNABLE = (TypeError, AttributeError, NotImplementedError)


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a local path."""
    return "://" in location


class UnlistedError(StoreError):
    """What is in a folder cannot be told: the server lists none, or not for us."""


def zarr_store(location: str, *, read_only: bool) -> LocalFiles | RemoteStore:
    """What zarr takes for a location: a RemoteStore for a URL, LocalFiles else.

    StoreError for a URL of no known protocol, or of one whose package is not installed.
    """
    if not is_url(location):
        return LocalFiles(location, read_only=read_only)
    protocol = location.split("://")[0]
    try:
        return RemoteStore.of(location, read_only=read_only)
    except ImportError as error:
        how = "run pip install 'semires[remote]'" if protocol in _EXTRA else f"{error}"
        raise StoreError(
            f"{location}: expected fsspec's package for {protocol}:// locations, found it not installed; {how}"
        ) from error
    except Exception as error:  # each file system's constructor raises its own kinds
        raise _unreachable(location, error) from error


class RemoteStore(FsspecStore):
    """FsspecStore with what `Storage` does to objects; its every error is a StoreError of one line.

    Failures come as OSError from some file systems and as their libraries' own kinds from others (botocore, aiohttp).
    In a process forked from one that used the store the file system is made anew: connections of the parent hang, and
    of an open file both would move the position.
    """

    _url = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process = os.getpid()
        self._is_listed = False

    @classmethod
    def of(cls, url: str, *, read_only: bool) -> Self:
        """The store at a URL; raises what its file system raises."""
        store = cls.from_url(url, storage_options=_OPTIONS, read_only=read_only)
        assert isinstance(store, cls)
        store._url = url
        return store

    def with_read_only(self, read_only: bool = False) -> Self:
        """As FsspecStore."""
        store = super().with_read_only(read_only)
        assert isinstance(store, type(self))
        store._url = self._url
        return store

    def names(self, path: str) -> Sequence[str]:
        """Names directly under `path`; none where nothing is there, UnlistedError where that cannot be told."""
        names = sync(self._names(path))
        if METADATA not in names and not sync(self._lists()):
            raise _unlisted(f"{self._url}/{path}", f"a list without {METADATA}, which is there")
        return names

    def num_bytes(self, path: str) -> int | None:
        """Bytes stored below `path`, from one listing; None where the server does not tell."""
        return None if self._is_any_of(_NO_SIZES) else sync(self._num_bytes(path))

    def put(self, key: str, pieces: Iterable[Any], *, replace: bool = True, durable: bool = False) -> bool:
        """Write the bytes of `pieces` as one object; without `replace` one that is there stays, and False is returned.

        It is durable in either case: what a server took, it has.
        """
        if not replace and sync(self.exists(key)):
            return False
        sync(self.set(key, CpuBuffer.from_bytes(b"".join(pieces))))
        return True

    def sync_below(self, path: str) -> None:
        """Return: all is durable, see `put`."""

    def delete_all(self, path: str) -> None:
        """Delete everything at `path`, metadata first: an interrupted deletion leaves nothing that looks finished."""
        sync(self.delete(f"{path}/{METADATA}"))
        sync(self.delete_dir(path))

    def check_writable(self) -> None:
        """Raise StoreError where the file system only reads."""
        if self._is_any_of(_READ_ONLY):
            raise StoreError(
                f"{self._url}: expected a location that can be written, found one of {_protocol(self._url)}://, "
                "which is only read; copy the store to a folder or an object store and write there"
            )

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """As FsspecStore."""
        with self._one_line(key):
            return _cut(await super().get(key, prototype, byte_range), byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As FsspecStore."""
        asked = [*key_ranges]
        with self._one_line():
            values = await super().get_partial_values(prototype, asked)
        return [_cut(value, byte_range) for value, (_, byte_range) in zip(values, asked, strict=True)]

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """As FsspecStore."""
        self.check_writable()
        with self._one_line(key):
            await super().set(key, value, byte_range)

    async def exists(self, key: str) -> bool:
        """As FsspecStore."""
        with self._one_line(key):
            if not self._is_any_of(_NO_SIZES):
                return await super().exists(key)
            # fsspec takes whatever a web server answers but the file for its absence, an overload for a loss.
            try:
                return bool(await self.fs._exists(self._below(key), strict=True))
            except FileNotFoundError:
                return False

    async def delete(self, key: str) -> None:
        """As FsspecStore."""
        self.check_writable()
        with self._one_line(key):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """As FsspecStore."""
        self.check_writable()
        with self._one_line(prefix):
            await super().delete_dir(prefix)

    async def getsize(self, key: str) -> int:
        """As FsspecStore."""
        with self._one_line(key):
            return await super().getsize(key)

    async def list(self) -> AsyncIterator[str]:
        """As FsspecStore."""
        with self._one_line():
            async for name in super().list():
                yield name

    async def list_prefix(self, prefix: str) -> AsyncIterator[str]:
        """As FsspecStore."""
        with self._one_line(prefix):
            async for name in super().list_prefix(prefix):
                yield name

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        """As FsspecStore, which takes the names of a store at the root of its file system, as in a zip, for others."""
        for name in await self._names(prefix.rstrip("/")):
            yield name

    async def _names(self, path: str) -> Sequence[str]:
        folder = self._below(path)
        with self._one_line(path):
            try:
                found = await self.fs._ls(folder, detail=False)
            except (FileNotFoundError, NotADirectoryError):
                return []
            except Exception as error:
                if isinstance(error, PermissionError) or getattr(error, "status", None) in _FORBIDDEN:
                    raise _unlisted(f"{self._url}/{path}", _named(error)) from error
                raise
        paths = {str(each).strip("/") for each in found}
        # An object store may hold an empty object of the folder's own name, a web server's page links to its orders.
        names = {each.rpartition("/")[2] for each in paths if each != folder.strip("/")}
        return sorted(name for name in names if name and not name.startswith(("?", "#")))

    async def _lists(self) -> bool:
        """Whether what is listed is what is there: the root's metadata is."""
        if not self._is_listed:
            self._is_listed = METADATA in await self._names("") or not await self.exists(METADATA)
        return self._is_listed

    async def _num_bytes(self, path: str) -> int | None:
        with self._one_line(path):
            try:
                found = await self.fs._find(self._below(path), detail=True)
            except PermissionError:
                return None
            return sum(int(item["size"]) for item in found.values())

    def _below(self, path: str) -> str:
        """The file system's own path; of a store at its root, as in a zip, without a slash before it."""
        return f"{self.path}/{path}".rstrip("/") if self.path else path

    def _is_any_of(self, protocols: tuple[str, ...]) -> bool:
        return _protocol(self._url) in protocols

    @contextlib.contextmanager
    def _one_line(self, key: str = "") -> Iterator[None]:
        if self._process != os.getpid():
            self.fs = type(self).of(self._url, read_only=self.read_only).fs
            self._process = os.getpid()
        try:
            yield
        except StoreError:
            raise
        except Exception as error:
            raise _unreachable(f"{self._url}/{key}".rstrip("/"), error) from error


def _protocol(url: str) -> str:
    """The protocol that answers: of simplecache::https://host/x that is https."""
    return url.split("://")[0].rpartition("::")[2]


def _cut(value: Buffer | None, byte_range: ByteRequest | None) -> Buffer | None:
    """What was asked of a value: some web servers, Python's own too, answer any range with the whole file."""
    if value is None:
        return None
    if isinstance(byte_range, RangeByteRequest) and len(value) > byte_range.end - byte_range.start:
        return value[byte_range.start : byte_range.end]
    if isinstance(byte_range, SuffixByteRequest) and len(value) > byte_range.suffix:
        return value[len(value) - byte_range.suffix :]
    return value


def _named(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _unlisted(location: str, found: str) -> UnlistedError:
    return UnlistedError(
        f"{location}: expected a folder that can be listed, found {found}; let the server list folders, or run "
        "zarr.consolidate_metadata on the store where it was written, or copy it to a folder or an object store"
    )


def _unreachable(location: str, error: Exception) -> StoreError:
    if isinstance(error, _UNABLE):
        return StoreError(
            f"{location}: expected a file system that can do what a store needs, found {_named(error)}; copy the store "
            "to a folder or an object store and use that"
        )
    return StoreError(
        f"{location}: expected a location that can be reached, found {_named(error)}; check its address, your "
        "credentials and the network"
    )
