"""Documents: the metadata of groups and arrays, a small JSON file each, read many at once and parsed strictly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
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
# A copy of all metadata below, which zarr.consolidate_metadata adds; some releases write out that there is none.
_CONSOLIDATED = "consolidated_metadata"


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


def group_document(attributes: Mapping[str, Any]) -> bytes:
    """The document of a group with these attributes."""
    return json.dumps({"attributes": dict(attributes), **_GROUP}, indent=2).encode()


def parse_group(path: str, document: bytes) -> dict[str, Any]:
    """The attributes in a group's document; DamageError, naming `path`, where it is anything else."""
    return _parse_group(path, document)[0]


def consolidated_paths(path: str, document: bytes) -> frozenset[str] | None:
    """Paths of all groups and arrays below a group, from the copy of their metadata in its document; None without one.

    DamageError as `parse_group`.
    """
    copy = _parse_group(path, document)[1]
    return None if copy is None else frozenset(copy["metadata"])


def _parse_group(path: str, document: bytes) -> tuple[dict[str, Any], dict[str, Any] | None]:
    try:
        parsed = json.loads(document)
    except ValueError as error:
        raise damaged(path, error) from error
    attributes, copy = (
        parsed.pop(key, None) if isinstance(parsed, dict) else None for key in ("attributes", _CONSOLIDATED)
    )
    is_copy = copy is None or (isinstance(copy, dict) and isinstance(copy.get("metadata"), dict))
    # No more and no less than zarr writes: a key that changed into an unknown one is damage too.
    if not isinstance(attributes, dict) or not is_copy or parsed != _GROUP:
        raise damaged(path, ValueError("not the metadata of a group"))
    return attributes, copy


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
