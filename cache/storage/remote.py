"""Stores behind a URL: zarr's fsspec store, with errors in one line, fresh listings, and safe to use after a fork.

    s3://bucket/refcoco.zarr    with `pip install 'semires[remote]'`
    gs://…, abfs://…, …         with fsspec's package for it (gcsfs, adlfs, …)
    memory://…                  in this process, for tests

Credentials, endpoints and other options come from where each file system looks for them: the environment
(AWS_ENDPOINT_URL, …), its own files, or fsspec's configuration (~/.config/fsspec).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path
from typing import Any

from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore

from semires.cache.errors import StoreError

# A listing that fsspec kept would hide the parts that other writers commit.
_OPTIONS = {"use_listings_cache": False}
_EXTRA = ("s3", "s3a")


def is_url(location: str) -> bool:
    """Whether a location is a URL, not a local path."""
    return "://" in location


def zarr_store(location: str, *, read_only: bool) -> Store | Path:
    """What zarr takes for a location: a RemoteStore for a URL, a Path else.

    StoreError for a URL of no known protocol, or of one whose package is not installed.
    """
    if not is_url(location):
        return Path(location)
    protocol = location.split("://")[0]
    try:
        return RemoteStore.from_url(location, storage_options=_OPTIONS, read_only=read_only)
    except ImportError as error:
        how = "run pip install 'semires[remote]'" if protocol in _EXTRA else f"{error}"
        raise StoreError(
            f"{location}: expected fsspec's package for {protocol}:// locations, found it not installed; {how}"
        ) from error
    except Exception as error:  # each file system's constructor raises its own kinds
        raise _unreachable(location, error) from error


class RemoteStore(FsspecStore):
    """FsspecStore whose every error is a StoreError of one line.

    Failures come as OSError from some file systems and as their libraries' own kinds from others (botocore, aiohttp).
    In a process forked from one that used the store the connections are made anew: those of the parent hang.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._process = os.getpid()

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """As FsspecStore."""
        with self._one_line(key):
            return await super().get(key, prototype, byte_range)

    async def get_partial_values(
        self, prototype: BufferPrototype, key_ranges: Iterable[tuple[str, ByteRequest | None]]
    ) -> list[Buffer | None]:
        """As FsspecStore."""
        with self._one_line():
            return await super().get_partial_values(prototype, key_ranges)

    async def set(self, key: str, value: Buffer, byte_range: tuple[int, int] | None = None) -> None:
        """As FsspecStore."""
        with self._one_line(key):
            await super().set(key, value, byte_range)

    async def exists(self, key: str) -> bool:
        """As FsspecStore."""
        with self._one_line(key):
            return await super().exists(key)

    async def delete(self, key: str) -> None:
        """As FsspecStore."""
        with self._one_line(key):
            await super().delete(key)

    async def delete_dir(self, prefix: str) -> None:
        """As FsspecStore."""
        with self._one_line(prefix):
            await super().delete_dir(prefix)

    async def getsize(self, key: str) -> int:
        """As FsspecStore."""
        with self._one_line(key):
            return await super().getsize(key)

    async def getsize_prefix(self, prefix: str) -> int:
        """As FsspecStore, from one listing in place of a request an object."""
        with self._one_line(prefix):
            found = await self.fs._find(f"{self.path}/{prefix}".rstrip("/"), detail=True)
            return sum(int(item["size"]) for item in found.values())

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
        """As FsspecStore."""
        with self._one_line(prefix):
            async for name in super().list_dir(prefix):
                yield name

    @contextlib.contextmanager
    def _one_line(self, key: str = "") -> Iterator[None]:
        if self._process != os.getpid():
            self.fs = type(self.fs)(*self.fs.storage_args, **self.fs.storage_options)
            self._process = os.getpid()
        try:
            yield
        except Exception as error:
            location = self.fs.unstrip_protocol(f"{self.path}/{key}".rstrip("/"))
            raise _unreachable(location, error) from error


def _unreachable(location: str, error: Exception) -> StoreError:
    reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return StoreError(
        f"{location}: expected a location that can be reached, found {reason}; check its address, your credentials "
        "and the network"
    )
