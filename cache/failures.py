"""Images set aside: those that could not be decoded, with the reason; beside the parts, in small pieces of their own.

    failed/<name>/     attributes: image_id (list of integers), reason (list of strings, each "file name: what is
                       wrong"), and their checksum

Like parts, pieces are immutable and each is written by one writer, so that any number of writers list what they set
aside without a common file. Of an image listed in several pieces the last piece by name counts; an image that a part
holds was decoded since, and is on no list.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from semires.cache.errors import RESTORE, DamageError, StoreError
from semires.cache.parts import new_part_name
from semires.cache.schema import CHECKSUM, FAILED, checksum, sealed
from semires.cache.storage.hierarchy import Storage


def read_failures(storage: Storage) -> dict[int, str]:
    """Reasons by image id of every piece under `failed/`, images that were stored since included.

    StoreError where a piece is not of the form above, DamageError where it changed since it was written.
    """
    failures: dict[int, str] = {}
    for piece in _read_pieces(storage).values():
        failures.update(piece)
    return failures


def _read_pieces(storage: Storage) -> dict[str, dict[int, str]]:
    """The finished pieces by path, in the order of their names."""
    paths = [f"{FAILED}/{name}" for name in storage.child_names(FAILED)]
    return {
        path: _parse(f"{storage.location}/{path}", attributes)
        for path, attributes in zip(paths, storage.group_attributes(paths), strict=True)
        if attributes is not None
    }


def write_failures(storage: Storage, failures: Mapping[int, str]) -> None:
    """Write `failures`, reasons by image id, as one piece."""
    attributes = {"image_id": list(failures), "reason": list(failures.values())}
    storage.write_group(f"{FAILED}/{new_part_name()}", sealed(attributes))


def merge_failures(storage: Storage, stored_ids: Collection[int]) -> None:
    """Write all pieces as one, without the images that are stored since; what others write meanwhile stays."""
    pieces = _read_pieces(storage)
    failures = {image_id: reason for piece in pieces.values() for image_id, reason in piece.items()}
    remaining = {image_id: reason for image_id, reason in failures.items() if image_id not in stored_ids}
    if len(pieces) < 2 and remaining == failures:
        return
    if remaining:
        write_failures(storage, remaining)
    for path in pieces:
        storage.delete_group(path)


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
