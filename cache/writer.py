"""Writing a store: images are buffered and committed as immutable parts.

    with StoreWriter("data/cache/refcoco.zarr", manifest) as writer:
        for image_id in writer.missing(image_ids):
            writer.add(Candidates.from_masks(image_id, masks, predicted_iou, stability_score, points_xy))

A run that is killed loses its buffer and nothing else; the next run asks `missing` and goes on. Any number of writers
may work on one store at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.failures import read_failures, write_failures
from semires.cache.files import FileRecord
from semires.cache.parts import new_part_name, num_native_bytes, read_indices, write_part
from semires.cache.schema import ALL_VIEWS, FAILED, PARTS, VIEWS, Manifest
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.hierarchy import Storage, normalize_location


class StoreWriter:
    """Creates a store at `location`, a path or fsspec URL, or goes on with the one that is there.

    A store made with another manifest raises StoreError, unless `overwrite` asks to delete its contents first; what is
    not a candidate store is never overwritten. A part is committed when it holds `images_per_part` images or
    `bytes_per_part` bytes of packed bits, whichever comes first: the buffer's memory, and what a kill can lose. `codec`
    ("zstd-3", see storage/codec.py; StoreError for no codec) compresses this writer's parts; parts of one store may
    differ. `origin` says whose images they are, see PartIndex.
    """

    def __init__(
        self,
        location: str | Path,
        manifest: Manifest,
        *,
        images_per_part: int = 256,
        bytes_per_part: int = 64 * 2**20,
        codec: str = str(DEFAULT_CODEC),
        overwrite: bool = False,
        origin: str = "",
    ) -> None:
        if images_per_part < 1 or bytes_per_part < 1:
            raise ValueError(f"a part expects at least 1 image and 1 byte, got {images_per_part}, {bytes_per_part}")
        self.location = normalize_location(location)
        self._images_per_part = images_per_part
        self._bytes_per_part = bytes_per_part
        self._codec = Codec.parse(codec)
        self._origin = origin
        self._storage = Storage.create(self.location, manifest.to_attributes())
        if overwrite:
            self._clear(manifest)
        # Also after creating: another writer may have created the store first, with other settings.
        try:
            stored = Manifest.from_attributes(self._storage.attributes)
            stored.check_matches(manifest)
        except StoreError as error:
            raise type(error)(f"{self.location}: {error}") from None
        # The copy that a damaged root is repaired from, before there is anything to lose.
        if self._storage.group_attributes([PARTS]) == [None]:
            self._storage.write_group(PARTS, stored.to_attributes())
        self._known_parts: set[str] = set()
        self._known_ids: set[int] = set()
        self._refresh()
        self._buffer: list[Candidates] = []
        self._files: list[FileRecord | None] = []
        self._buffered_bytes = 0
        self._set_aside: dict[int, str] = {}
        self._closed = False

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # On an error too: candidates that are finished cost seconds of SAM each.
        self.close()

    def missing(self, image_ids: Iterable[int]) -> list[int]:
        """Those of `image_ids`, in their order, that neither the store nor this writer's buffer holds.

        Looks for parts that other writers committed in the meantime.
        """
        self._refresh()
        return [image_id for image_id in image_ids if image_id not in self._known_ids]

    @property
    def num_uncommitted(self) -> int:
        """Images that were added or set aside since the last commit."""
        return len(self._buffer) + len(self._set_aside)

    def failures(self) -> dict[int, str]:
        """Images that any writer set aside, by id, ascending: "file name: reason"; none that is stored by now."""
        self._refresh()
        failures = read_failures(self._storage) | self._set_aside
        return {image_id: failures[image_id] for image_id in sorted(failures) if image_id not in self._known_ids}

    def set_aside(self, image_id: int, reason: str) -> None:
        """List an image that cannot be decoded, with the reason ("file name: what is wrong"), at the next commit.

        `missing` goes on to name the image: its file may be replaced.
        """
        assert not self._closed, "the writer is closed"
        self._set_aside[image_id] = reason

    def add(self, candidates: Candidates, file: FileRecord | None = None) -> None:
        """Buffer the candidates of one image, made of `file`; commits a part when it is full.

        Raises StoreError for an image that the store (as last seen) or the buffer already holds.
        """
        assert not self._closed, "the writer is closed"
        if candidates.image_id in self._known_ids:
            raise StoreError(
                f"{self.location}: expected an image that is not stored yet, found image {candidates.image_id} again; "
                "add only what `missing` returns"
            )
        self._known_ids.add(candidates.image_id)
        self._buffer.append(candidates)
        self._files.append(file)
        self._buffered_bytes += num_native_bytes(candidates)
        if len(self._buffer) >= self._images_per_part or self._buffered_bytes >= self._bytes_per_part:
            self.commit()

    def commit(self) -> None:
        """Write the buffer as one part and list what was set aside; nothing where there is neither.

        StoreError where it cannot be written, e.g. because the disk is full. The buffer is then still held: another
        `commit` or `close` writes it.
        """
        # The images first: they cost more, and a damaged list must not keep them from being stored.
        self._commit_buffer()
        self._list_set_aside()

    def close(self) -> None:
        """Commit what is buffered; the writer takes no more images."""
        self.commit()
        self._closed = True

    def _commit_buffer(self) -> None:
        if not self._buffer:
            return
        name = new_part_name()
        try:
            write_part(self._storage, name, self._buffer, files=self._files, origin=self._origin, codec=self._codec)
        except BaseException:  # Ctrl-C too
            # What was written takes the room that the next try needs, and if it is whole it would be there twice.
            with contextlib.suppress(StoreError):
                self._storage.delete_group(f"{PARTS}/{name}")
            raise
        self._known_parts.add(name)
        self._buffer = []
        self._files = []
        self._buffered_bytes = 0

    def _list_set_aside(self) -> None:
        if not self._set_aside:
            return
        # What is listed in the same words stays as it is: a damaged file that is tried every day adds nothing.
        listed = read_failures(self._storage)
        new = {image_id: why for image_id, why in self._set_aside.items() if listed.get(image_id) != why}
        if new:
            write_failures(self._storage, new)
        self._set_aside = {}

    def _refresh(self) -> None:
        for name, index in read_indices(self._storage, skip=self._known_parts).items():
            self._known_parts.add(name)
            self._known_ids.update(index.image_id.tolist())

    def _clear(self, manifest: Manifest) -> None:
        """Delete views, parts and lists, then set the manifest; interrupted anywhere, what is left is a valid store."""
        if "schema_version" not in self._storage.attributes:
            raise StoreError(
                f"{self.location}: expected a candidate store to overwrite, found another Zarr group; "
                "choose another location"
            )
        for path in (VIEWS, ALL_VIEWS, PARTS, FAILED):
            for name in self._storage.child_names(path):
                self._storage.delete_group(f"{path}/{name}")
        # With it the copy of the manifest, so that root and copy never disagree.
        self._storage.delete_group(PARTS)
        self._storage.rewrite_group("", manifest.to_attributes(self._storage.attributes))
