"""Verification: every byte of a store read again, and what is damaged dropped so that it is made anew.

Zarr's checksums find damaged bytes of arrays, ours damaged metadata (see schema.py). Beyond checksums, areas and boxes
are computed again from the bits, and views from the parts: that also finds what was written wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_areas, packed_boxes, resize_nearest_packed
from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.findings import Findings, Verification
from semires.cache.index import ImageLocation
from semires.cache.parts import PartIndex, index_columns
from semires.cache.reader import MASK_COLUMNS, candidates_at
from semires.cache.schema import ALL_VIEWS, CHECKSUM, FAILED, PARTS, VIEWS, Manifest, checksum, view_attributes
from semires.cache.storage.documents import METADATA
from semires.cache.storage.hierarchy import Storage, normalize_location

_TRIES = 3  # passes over a store that others keep rewriting
_INDEX_FIELDS = ("image_id", "height", "width", "masks_per_image")


def verify_store(
    location: str | Path,
    *,
    expected_ids: Collection[int] | None = None,
    repair: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> Verification:
    """Read the whole store at `location` (a path or fsspec URL) again and say everything that is wrong with it.

    Compared are: all checksums, each part's index with its columns, areas and boxes with the bits, padding bits with
    zero, views with the parts they were derived from, and, where `expected_ids` names the images of the split, the
    images with those. Takes some 30 ms for an image of 100 masks of 480x640 with a view at 480x480, one core, and the
    memory of one part. `on_progress(done, total)` is told the number of images at the start and after each part.

    Views of another resampling rule are only named. `repair` then deletes damaged parts with their views, damaged view
    parts, views of another rule and damaged lists of images set aside
    (metadata first, so that an interrupted repair is simply repeated), and writes damaged metadata of groups anew: the
    manifest from its copy. `semires cache-sam` (of imported masks `semires cache import`) afterwards makes just the
    images that are gone, training or `semires cache view` their views. Parts without metadata are deleted only where
    their name says that they were begun over an hour ago: a younger one may be another process at work. View parts
    without metadata stay, deriving the view goes on with them.

    Raises StoreError where there is no store of this schema version, where both copies of the manifest are damaged, and
    where the store cannot be read or listed at all (network, permissions, a web server that lists no folders): only
    what is there and wrong counts as damage, not what a compaction replaces meanwhile. `repair` refuses what cannot be
    written, and views without any part.
    """
    storage = Storage.salvage(normalize_location(location), writable=repair)
    for _ in range(_TRIES):
        verifier = _Verifier(storage, on_progress)
        verifier.look_at_everything()
        if not verifier.is_outdated():
            break
    if repair and verifier.num_views and not verifier.num_parts:
        raise StoreError(
            f"{storage.location}/{PARTS}: expected the parts that the views were derived from, found none; a repair "
            "would delete the views too: bring the parts back, or write the store anew"
        )
    repaired = verifier.findings.repair() if repair else []
    stored = verifier.intact_images
    if expected_ids is not None:
        missing = tuple(sorted({int(image_id) for image_id in expected_ids} - stored.keys()))
        num_missing: int | None = len(missing)
    else:
        missing = ()
        expected = verifier.manifest.num_images
        # A folder of photographs that grew holds more than the manifest knows of.
        num_missing = None if expected is None or expected < len(stored) else expected - len(stored)
    holders = verifier.holders.items()
    return Verification(
        manifest=verifier.manifest,
        num_parts=verifier.num_parts,
        num_images=len(stored),
        num_masks=sum(stored.values()),
        damaged=tuple(sorted(verifier.findings.damaged, key=lambda damage: damage.path)),
        duplicates={image_id: tuple(names) for image_id, names in sorted(holders) if len(names) > 1},
        unfinished=tuple(verifier.findings.unfinished),
        outdated=tuple(verifier.findings.outdated),
        missing=missing,
        num_missing=num_missing,
        repaired=tuple(repaired),
    )


class _Verifier:
    """One pass over a store: notes down what is there and what is wrong, changes nothing."""

    def __init__(self, storage: Storage, on_progress: Callable[[int, int], None] | None) -> None:
        self.storage = storage
        self.on_progress = on_progress or (lambda done, total: None)
        self.findings = Findings(storage)
        self.not_there: set[str] = set()  # paths of parts and view parts without metadata
        self.holders: dict[int, list[str]] = {}
        self.intact_images: dict[int, int] = {}  # number of masks by image id
        self.names: list[str] = []  # of parts
        self.num_parts = 0
        self.num_views = 0  # parts of views, of all sizes
        self.manifest = self._verify_manifest()

    def look_at_everything(self) -> None:
        """Views are listed before parts, so that a part and its view that are finished in between are both left out."""
        view_names = self._list_views()
        names = self.names = self.storage.child_names(PARTS)
        indices = {name: self._read_index(f"{PARTS}/{name}") for name in names}
        self.num_parts = len(names) - sum(f"{PARTS}/{name}" in self.not_there for name in names)
        views = {size: self._verify_view(size, viewed, names) for size, viewed in view_names.items()}
        self.num_views = sum(map(len, view_names.values()))
        total = sum(len(index.image_id) for index in indices.values() if index is not None)
        done = 0
        self.on_progress(done, total)
        for name, index in indices.items():
            view_parts = {size: found for size, viewed in views.items() if (found := viewed.get(name)) is not None}
            bits = None if index is None else self._verify_part(name, index)
            if index is not None and bits is not None:
                for size, view_index in view_parts.items():
                    self._verify_view_part(size, name, index, view_index, bits)
            elif f"{PARTS}/{name}" not in self.not_there:
                # The views of a damaged part cannot be proved, and go with it, they first: no view without its part.
                self.findings.to_delete += [f"{VIEWS}/{size}/{PARTS}/{name}" for size in view_parts]
                self.findings.to_delete.append(f"{PARTS}/{name}")
            if index is not None:
                done += len(index.image_id)
                self.on_progress(done, total)
        self._verify_failures()

    def is_outdated(self) -> bool:
        """Whether what is wrong may be only that a part was replaced by others meanwhile (rewriting.py)."""
        there = {f"{PARTS}/{name}" for name in self.names} - self.not_there
        return bool(self.findings.damaged) and any(map(self._is_gone, there))

    def _is_gone(self, path: str) -> bool:
        try:
            return self.storage.group_attributes([path])[0] is None
        except DamageError:
            return False

    def _verify_manifest(self) -> Manifest:
        """The manifest from the root or, where that is damaged, from the copy; the other is written anew."""
        found: dict[str, Manifest] = {}
        beside: dict[str, dict[str, Any]] = {}
        errors: dict[str, StoreError] = {}
        for path in ("", PARTS):
            try:
                attributes = self.storage.group_attributes([path])[0]
            except DamageError as error:
                errors[path] = error
                continue
            try:
                if attributes is not None:
                    beside[path] = attributes
                    found[path] = Manifest.from_attributes(attributes)
            except StoreError as error:
                errors[path] = error
        if not found:
            raise errors.get("") or StoreError(
                f"{self.storage.location}: expected a candidate store, found nothing; "
                "correct the location, or write the store with `semires cache-sam`"
            )
        manifest = found.get("", found.get(PARTS))
        assert manifest is not None
        for path in ("", PARTS):
            if found.get(path) == manifest:
                continue
            if path == PARTS and path not in errors and path not in found and not self.storage.child_names(PARTS):
                continue  # a writer was interrupted before its first part; the next one writes the copy
            unread = errors.get(path)
            reason = f"expected {manifest}, found {found.get(path)}" if unread is None else self.findings.short(unread)
            self.findings.report_group(path, reason, manifest.to_attributes(beside.get(path)))
        return manifest

    def _list_views(self) -> dict[int, list[str]]:
        """Names of the view parts by the view's size; views of another rule are noted down."""
        without_rule = [name for name in self.storage.child_names(ALL_VIEWS) if name.isdecimal()]
        self.findings.outdated += [f"{ALL_VIEWS}/{name}" for name in without_rule]
        sizes = sorted(int(name) for name in self.storage.child_names(VIEWS) if name.isdecimal())
        return {size: self.storage.child_names(f"{VIEWS}/{size}/{PARTS}") for size in sizes}

    def _verify_view(self, size: int, viewed: list[str], parts: Collection[str]) -> dict[str, PartIndex | None]:
        """Check the groups above the parts of a view; returns the indices of the view parts."""
        root = f"{VIEWS}/{size}"
        self._verify_group(root, view_attributes(size))
        # What zarr writes on the way down says nothing.
        for path in (ALL_VIEWS, VIEWS, f"{root}/{PARTS}"):
            self._verify_group(path, {})
        indices: dict[str, PartIndex | None] = {}
        for name in viewed:
            path = f"{root}/{PARTS}/{name}"
            if name in parts:
                indices[name] = self._read_index(path)
                if indices[name] is None and path not in self.not_there:
                    self.findings.to_delete.append(path)
            else:
                self.findings.report(path, "expected the part that it was derived from, found that part gone")
                self.findings.to_delete.append(path)
        return indices

    def _verify_failures(self) -> None:
        names = self.storage.child_names(FAILED)
        if names:
            self._verify_group(FAILED, {})
        for name in names:
            path = f"{FAILED}/{name}"
            try:
                attributes = self.storage.group_attributes([path])[0]
            except DamageError as error:
                self.findings.report(path, self.findings.short(error, path))
            else:
                if attributes is None or attributes.get(CHECKSUM) == checksum(attributes):
                    continue
                self.findings.report(path, f"attribute {CHECKSUM}: expected {checksum(attributes)}")
            self.findings.to_delete.append(path)

    def _verify_group(self, path: str, expected: dict[str, Any]) -> None:
        """Compare the attributes of a group that is not a part, if it is there; a user's own beside them stay."""
        if any(damage.path == f"{path}/{METADATA}" for damage in self.findings.damaged):
            return
        try:
            found = self.storage.group_attributes([path])[0]
            if found is not None and not expected.items() <= found.items():
                self.findings.report_group(path, f"expected attributes {expected}, found {found}", found | expected)
        except DamageError as error:
            self.findings.report_group(path, self.findings.short(error, path), expected)

    def _read_index(self, path: str) -> PartIndex | None:
        """The index of a part or view part; None where it is damaged or not there, which is noted down."""
        try:
            attributes = self.storage.group_attributes([path])[0]
            if attributes is not None:
                return PartIndex.from_attributes(f"{self.storage.location}/{path}", attributes)
            self.not_there.add(path)
            # An empty folder is nobody's work: object stores keep one as an object of its own, a "folder marker".
            if self.storage.num_bytes(path) != 0:
                self.findings.unfinished.append(path)
        except DamageError as error:
            image_ids = self._column_ids(path) if path.startswith(f"{PARTS}/") else ()
            self.findings.report(path, self.findings.short(error, path), image_ids)
        return None

    def _column_ids(self, path: str) -> tuple[int, ...]:
        """The part's images from the column that repeats them under a checksum of its own; none where it is damaged."""
        try:
            image_ids = self.storage.open_column(f"{path}/image_id").read()
        except DamageError:
            return ()
        return tuple(image_ids.tolist()) if image_ids.dtype == np.int64 and image_ids.ndim == 1 else ()

    def _read_columns(self, path: str, index: PartIndex, names: Collection[str]) -> tuple[dict[str, Any], list[str]]:
        """Whole columns by name, and what is wrong with those that cannot be read."""
        columns, reasons = {}, []
        for name in names:
            try:
                if name not in index.columns:
                    raise DamageError(f"{name}: expected a column, found none in the part's attributes")
                columns[name] = self.storage.open_column(f"{path}/{name}", index.columns[name]).read()
            except DamageError as error:
                reasons.append(self.findings.short(error, path))
        return columns, reasons

    def _verify_part(self, name: str, index: PartIndex) -> list[NDArray[np.uint8]] | None:
        """Packed rows of each image of the part; None where anything in the part is wrong, which is noted down."""
        path = f"{PARTS}/{name}"
        repeated = index_columns(index)
        columns, reasons = self._read_columns(path, index, (*repeated, *MASK_COLUMNS))
        reasons += _differences(repeated, columns)
        if len(np.unique(index.image_id)) != len(index.image_id):
            reasons.append("image_id: expected each image once, found one again")
        for column in set(MASK_COLUMNS) & columns.keys():
            expected = int(index.byte_offset[-1]) if column == "bits" else index.num_masks
            if len(columns[column]) != expected:
                reasons.append(f"{column}: expected {expected} rows, found {len(columns[column])}")
        images = [] if reasons else self._verify_images(name, index, columns, reasons)
        image_ids = tuple(index.image_id.tolist())
        for image_id in image_ids:
            holders = self.holders.setdefault(image_id, [])
            if name not in holders:
                holders.append(name)
        for reason in reasons:
            self.findings.report(path, reason, image_ids)
        if reasons:
            return None
        for image in images:
            self.intact_images.setdefault(image.image_id, image.num_masks)
        return [image.bits for image in images]

    @staticmethod
    def _verify_images(
        name: str, index: PartIndex, columns: Mapping[str, NDArray[Any]], reasons: list[str]
    ) -> list[Candidates]:
        """The candidates of every image, compared with their bits; adds to `reasons`."""
        images = []
        locations = [ImageLocation.of(name, index, row) for row in range(len(index.image_id))]
        for found in locations:
            try:
                image = candidates_at(found, columns, start=locations[0])
            except ValueError as error:
                reasons.append(str(error))
                continue
            images.append(image)
            if not np.array_equal(image.area, packed_areas(image.bits)):
                reasons.append(f"image {image.image_id}: area expects the set pixels of bits, got others")
            if not np.array_equal(image.boxes_xyxy, packed_boxes(image.bits, width=image.width)):
                reasons.append(f"image {image.image_id}: box_xyxy expects the tight boxes of bits, got others")
        return images

    def _verify_view_part(
        self, size: int, name: str, index: PartIndex, view_index: PartIndex, native: list[NDArray[np.uint8]]
    ) -> None:
        """Derive a view part again from the packed rows of its part, image by image, and compare."""
        path = f"{VIEWS}/{size}/{PARTS}/{name}"
        expected = {field: getattr(index, field) for field in _INDEX_FIELDS}
        reasons = _differences(expected, {field: getattr(view_index, field) for field in _INDEX_FIELDS})
        repeated = {"image_id": index.image_id, "mask_offset": index.mask_offset}
        columns, unread = self._read_columns(path, view_index, repeated)
        reasons += [*unread, *_differences(repeated, columns)]
        try:
            bits = self.storage.open_column(f"{path}/bits", view_index.columns.get("bits", 0))
            if len(bits) != index.num_masks:
                reasons.append(f"bits: expected {index.num_masks} rows, found {len(bits)}")
            for row, image in enumerate(native):
                found = bits.read(int(index.mask_offset[row]), int(index.mask_offset[row + 1]))
                derived = resize_nearest_packed(image, width=int(index.width[row]), size=size)
                if not np.array_equal(found, derived):
                    reasons.append(f"image {index.image_id[row]}: expected the masks of its part, found others")
        except DamageError as error:
            reasons.append(self.findings.short(error, path))
        for reason in reasons:
            self.findings.report(path, reason)
        if reasons:
            self.findings.to_delete.append(path)


def _differences(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> list[str]:
    """What to say of each array of both that differs."""
    return [
        f"{name}: expected the numbers that the part's attributes say, found others"
        for name, array in expected.items()
        if name in found and not np.array_equal(array, found[name])
    ]
