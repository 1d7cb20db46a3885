"""Images set aside: those that could not be decoded, with the reason; beside the parts, in small pieces of their own.

    failed/<name>/     attributes: image_id (list of integers), reason (list of strings, each "file name: what is
                       wrong"), and their checksum

Like parts, pieces are immutable and each is written by one writer, so that any number of writers list what they set
aside without a common file. Of an image listed in several pieces the last piece by name counts; an image that a part
holds was decoded since, and is on no list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from semires.cache.errors import RESTORE, DamageError, StoreError
from semires.cache.parts import new_part_name
from semires.cache.schema import CHECKSUM, FAILED, checksum, sealed
from semires.cache.storage.hierarchy import Storage


def read_failures(storage: Storage) -> dict[int, str]:
    """Reasons by image id of every piece under `failed/`, images that were stored since included.

    StoreError where a piece is not of the form above, DamageError where it changed since it was written.
    """
    names = storage.child_names(FAILED)
    paths = [f"{FAILED}/{name}" for name in names]
    failures: dict[int, str] = {}
    for path, attributes in zip(paths, storage.group_attributes(paths), strict=True):
        if attributes is not None:
            failures.update(_parse(f"{storage.location}/{path}", attributes))
    return failures


def write_failures(storage: Storage, failures: Mapping[int, str]) -> None:
    """Write `failures`, reasons by image id, as one piece."""
    attributes = {"image_id": list(failures), "reason": list(failures.values())}
    storage.write_group(f"{FAILED}/{new_part_name()}", sealed(attributes))


def _parse(path: str, attributes: Mapping[str, Any]) -> dict[int, str]:
    image_ids, reasons = attributes.get("image_id"), attributes.get("reason")
    if not isinstance(image_ids, list) or not all(type(image_id) is int for image_id in image_ids):
        raise StoreError(f"{path}: attribute image_id: expected a list of integers, found {image_ids!r:.80}; {RESTORE}")
    if not isinstance(reasons, list) or not all(isinstance(reason, str) for reason in reasons):
        raise StoreError(f"{path}: attribute reason: expected a list of texts, found {reasons!r:.80}; {RESTORE}")
    if len(image_ids) != len(reasons):
        raise StoreError(f"{path}: attribute reason: expected {len(image_ids)} texts, found {len(reasons)}; {RESTORE}")
    if attributes.get(CHECKSUM) != checksum(attributes):
        raise DamageError(f"{path}: attribute {CHECKSUM}: expected {checksum(attributes)} for this list; {RESTORE}")
    return dict(zip(image_ids, reasons, strict=True))
