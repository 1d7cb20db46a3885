"""Findings: what a verification says of a store, and the repair that drops what is damaged."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from semires.cache.errors import RESTORE, StoreError
from semires.cache.parts import is_abandoned
from semires.cache.schema import PARTS, Manifest
from semires.cache.storage.documents import METADATA
from semires.cache.storage.hierarchy import Storage


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One thing that is not as it was written."""

    path: str
    """Below the store: parts/<name>, <view>/parts/<name>, failed/<name>, or the metadata file of a group."""
    reason: str
    """What was expected and what was found."""
    image_ids: tuple[int, ...] = ()
    """Images of the part, which a repair has made anew; empty where neither its index nor its column `image_id` can be
    read, and for anything else."""


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What `verify_store` found, as it was before a repair."""

    manifest: Manifest
    """How the store was made."""
    num_parts: int
    """Finished parts, damaged ones included."""
    num_images: int
    """Distinct images of the intact parts."""
    num_masks: int
    """Candidates of these images."""
    damaged: tuple[Damage, ...]
    """Everything that is damaged, by path; several entries of one path where several things are wrong."""
    duplicates: dict[int, tuple[str, ...]]
    """Names of the parts that hold an image, by image id, of images that several hold. Harmless: the first counts."""
    unfinished: tuple[str, ...]
    """Paths of parts and view parts without metadata: a writer was interrupted, or is at work."""
    outdated: tuple[str, ...]
    """Paths of views that were resampled by another rule: nothing reads them, deriving the view anew replaces them."""
    missing: tuple[int, ...]
    """Expected images that no intact part holds, ascending; empty where the expected ones were not given."""
    num_missing: int | None
    """How many; from the manifest's count where the expected ones were not given, None where that is unknown too."""
    repaired: tuple[str, ...]
    """Paths that the repair deleted, and metadata files that it wrote anew."""

    @property
    def is_intact(self) -> bool:
        """Whether nothing is damaged; images may still be missing, as while the store is being written."""
        return not self.damaged


class Findings:
    """What is wrong with a store, noted down while it is read, and how to repair it; only `repair` changes it."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.damaged: list[Damage] = []
        self.unfinished: list[str] = []
        self.outdated: list[str] = []
        self.to_delete: list[str] = []  # paths of groups, in the order in which they go
        self.to_rewrite: dict[str, dict[str, Any]] = {}  # attributes by the path of their group

    def report(self, path: str, reason: str, image_ids: tuple[int, ...] = ()) -> None:
        """Note down that something at `path` is damaged; whether it is deleted is the caller's to say."""
        self.damaged.append(Damage(path=path, reason=reason, image_ids=image_ids))

    def report_group(self, path: str, reason: str, attributes: dict[str, Any]) -> None:
        """Note down that the metadata of the group at `path` is damaged, and the `attributes` that it should have."""
        self.report(f"{path}/{METADATA}".lstrip("/"), reason)
        self.to_rewrite[path] = attributes

    def short(self, error: StoreError, path: str = "") -> str:
        """The error without the path, which stands beside it, and without the remedy, which is the same for all."""
        message = str(error).removesuffix(f"; {RESTORE}")
        return message.removeprefix(f"{self.storage.location}/{path}".rstrip("/")).lstrip("/: ")

    def repair(self) -> list[str]:
        """Drop what is damaged, outdated or abandoned and write damaged metadata of groups anew; returns the paths."""
        parts = [path for path in self.unfinished if path.startswith(f"{PARTS}/")]
        self.to_delete += [path for path in parts if is_abandoned(path.removeprefix(f"{PARTS}/"))]
        self.to_delete += self.outdated
        for path in self.to_delete:
            self.storage.delete_group(path)
        for path, attributes in self.to_rewrite.items():
            self.storage.rewrite_group(path, attributes)
        return [*self.to_delete, *(f"{path}/{METADATA}".lstrip("/") for path in self.to_rewrite)]
