"""Documents: the metadata of groups and arrays, a small JSON file each, read many at once and parsed strictly."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.buffer.cpu import buffer_prototype
from zarr.core.sync import sync
from zarr.storage import LocalStore

from semires.cache.storage.access import damaged

METADATA = "zarr.json"
"""Name of the document in the folder of its group or array."""

CONCURRENT_READS = 64
"""Enough for an object store's latency; a local store is read without any of this."""

_GROUP = {"zarr_format": 3, "node_type": "group"}
# Some releases of zarr write out that there is no consolidated metadata.
_GROUPS = (_GROUP, _GROUP | {"consolidated_metadata": None})


def read_documents(store: Store, paths: list[str], names: list[str]) -> list[bytes | None]:
    """Documents of the groups and arrays at `paths` of the store, None for each that has none.

    `names` are what messages call them. DamageError or StoreError where one is there and cannot be read.
    """
    keys = [f"{path}/{METADATA}".lstrip("/") for path in paths]
    if isinstance(store, LocalStore):
        return [_read_file(name, store.root / key) for name, key in zip(names, keys, strict=True)]
    return sync(_read_all(store, keys))


def present(path: str, document: bytes | None) -> bytes:
    """The document of what has to be at `path`; DamageError where there is none."""
    if document is None:
        raise damaged(path, FileNotFoundError(f"{METADATA} is missing"))
    return document


def parse_group(path: str, document: bytes) -> dict[str, Any]:
    """The attributes in a group's document; DamageError, naming `path`, where it is anything else."""
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise damaged(path, error) from error
    attributes = parsed.pop("attributes", None) if isinstance(parsed, dict) else None
    # No more and no less than zarr writes: a key that changed into an unknown one is damage too.
    if not isinstance(attributes, dict) or parsed not in _GROUPS:
        raise damaged(path, ValueError("not the metadata of a group"))
    return attributes


def _read_file(name: str, file_path: Path) -> bytes | None:
    try:
        with open(file_path, "rb") as file:
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise damaged(name, error) from error


async def _read_all(store: Store, keys: list[str]) -> list[bytes | None]:
    limit = asyncio.Semaphore(CONCURRENT_READS)

    async def read(key: str) -> bytes | None:
        async with limit:
            buffer = await store.get(key, buffer_prototype)
        return None if buffer is None else buffer.to_bytes()

    return await asyncio.gather(*(read(key) for key in keys))
