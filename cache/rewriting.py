"""Rewriting: images dropped from a store, and its parts merged, while others read it and write to it.

Parts never change. What stays of some parts is written as new ones, whole and with the views that the old ones had;
then the old ones are deleted, their views first. So whoever looks meanwhile finds every image, some of them twice,
which is harmless, and what a kill leaves behind the next rewriting merges.

Nothing is locked. A process deletes parts only where it has written all that stays of them itself, and where all of
them are still there after that; else another was faster, and it takes back what it wrote. Parts that hold the same
image are therefore rewritten together: none of them is emptied because another, which may just be replaced, has it too.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.failures import merge_failures
from semires.cache.index import ImageIndex, ImageLocation
from semires.cache.parts import PartIndex, check_columns, is_abandoned, new_part_name, read_indices, write_part
from semires.cache.reader import read_located
from semires.cache.schema import PARTS, VIEWS, Manifest
from semires.cache.storage.access import writing
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.hierarchy import Storage, normalize_location
from semires.cache.views import derive_part

IMAGES_PER_PART = 256
BYTES_PER_PART = 64 * 2**20
# A part below this share of both limits is small; merging larger ones would copy much and save little.
_SMALL = 0.5
# Times that others may be faster, one after the other.
_TRIES = 20


@dataclass(frozen=True, kw_only=True)
class Compaction:
    """What `compact_store` did."""

    num_parts_before: int
    num_parts: int
    """Finished parts then and now."""
    num_copies: int
    """Second copies of images that were dropped."""
    leftovers: tuple[str, ...]
    """Paths that were deleted: parts that a writer left unfinished, views of parts that are gone."""


def drop_images(location: str | Path, image_ids: Iterable[int], *, codec: str = str(DEFAULT_CODEC)) -> frozenset[int]:
    """Drop the candidates of these images, every copy of them, from the store at `location` (a path or fsspec URL).

    Returns the ids that the store held; stage one makes them anew. Each part that holds one is written anew without it,
    with its views. StoreError where there is no store, where a part is damaged, or where it cannot be written.
    """
    storage = _open(location)
    unwanted = frozenset(image_ids)
    dropped: set[int] = set()
    for _ in range(_TRIES):
        indices = read_indices(storage)
        held = {name: unwanted.intersection(index.image_id.tolist()) for name, index in indices.items()}
        if not any(held.values()):
            return frozenset(dropped)
        for group in _sharing(indices):
            found = frozenset[int]().union(*(held[name] for name in group))
            sources = {name: indices[name] for name in group}
            if found and _replace(storage, sources, _counting(sources, unwanted), Codec.parse(codec)) is not None:
                dropped |= found
    raise _busy(storage)


def compact_store(
    location: str | Path,
    *,
    images_per_part: int = IMAGES_PER_PART,
    bytes_per_part: int = BYTES_PER_PART,
    codec: str = str(DEFAULT_CODEC),
    on_progress: Callable[[int, int], None] | None = None,
) -> Compaction:
    """Drop second copies of images, merge small parts and delete leftovers in the store at `location` (a path or URL).

    The copy that counted stays, its bits unchanged. Parts are merged up to the limits, which are StoreWriter's, none
    with one of another origin; what others write meanwhile stays as it is. On the way, both the old and the new of a
    group of parts take room. `on_progress(done, total)` counts the images to be rewritten. StoreError as `drop_images`.
    """
    storage = _open(location)
    parsed = Codec.parse(codec)
    indices = read_indices(storage)
    # Those that were there, and what came in their place: a writer at work would otherwise keep this at it for ever.
    ours = set(indices)
    num_before, num_copies, tries = len(indices), 0, 0
    while True:
        groups = _groups({name: indices[name] for name in indices if name in ours}, images_per_part, bytes_per_part)
        if not groups:
            break
        total = sum(len(indices[name].image_id) for group in groups for name in group)
        done = 0
        for group in groups:
            if on_progress is not None:
                on_progress(done, total)
            sources = {name: indices[name] for name in group}
            kept = _counting(sources)
            num_images = sum(len(index.image_id) for index in sources.values())
            written = _replace(storage, sources, kept, parsed, images_per_part, bytes_per_part)
            if written is None:
                tries += 1
                break
            ours.update(written)
            num_copies += num_images - len(kept)
            done += num_images
        if on_progress is not None:
            on_progress(total, total)
        if tries > _TRIES:
            raise _busy(storage)
        indices = read_indices(storage)
    merge_failures(storage, {image_id for index in indices.values() for image_id in index.image_id.tolist()})
    return Compaction(
        num_parts_before=num_before,
        num_parts=len(indices),
        num_copies=num_copies,
        leftovers=tuple(_delete_leftovers(storage)),
    )


def _open(location: str | Path) -> Storage:
    storage = Storage(normalize_location(location), writable=True)
    try:
        Manifest.from_attributes(storage.attributes)
    except StoreError as error:
        raise type(error)(f"{storage.location}: {error}") from None
    return storage


def _busy(storage: Storage) -> StoreError:
    return StoreError(
        f"{storage.location}: expected to rewrite parts, found others doing so all the time; wait for them, then run "
        "the same command again"
    )


def _sharing(indices: Mapping[str, PartIndex]) -> list[list[str]]:
    """Names of all parts, those that hold an image in common together."""
    together: dict[str, list[str]] = {name: [name] for name in indices}
    holder: dict[int, str] = {}
    for name, index in indices.items():
        for image_id in index.image_id.tolist():
            first = together[holder.setdefault(image_id, name)]
            if first is not together[name]:
                first += together[name]
                for member in together[name]:
                    together[member] = first
    return [sorted(group) for group in {id(group): group for group in together.values()}.values()]


def _groups(indices: Mapping[str, PartIndex], images_per_part: int, bytes_per_part: int) -> list[list[str]]:
    """Names of the parts that are rewritten together: those that hold an image in common, and small ones."""
    sharing = _sharing(indices)
    groups = [group for group in sharing if len(group) > 1]
    merged: dict[str, tuple[list[str], int, int]] = {}  # the group begun, its images and bytes, by origin
    for name in sorted(group[0] for group in sharing if len(group) == 1):
        index = indices[name]
        num_images, num_bytes = len(index.image_id), int(index.byte_offset[-1])
        if num_images > _SMALL * images_per_part or num_bytes > _SMALL * bytes_per_part:
            continue
        group, images, size = merged.get(index.origin, ([], 0, 0))
        if not group or images + num_images > images_per_part or size + num_bytes > bytes_per_part:
            group, images, size = [], 0, 0
            groups.append(group)
        group.append(name)
        merged[index.origin] = group, images + num_images, size + num_bytes
    return [group for group in groups if len(group) > 1]


def _counting(sources: Mapping[str, PartIndex], unwanted: Collection[int] = ()) -> list[ImageLocation]:
    """Where the images of these parts lie that are not unwanted, of several copies the one that counts."""
    index = ImageIndex(sources)
    found = [index.locate(image_id) for image_id in index.image_ids.tolist() if image_id not in unwanted]
    # As they lie: neighbours are read as one slice. One origin after the other, as parts have one.
    return sorted(
        (location for location in found if location is not None),
        key=lambda location: (sources[location.part].origin, location.part, location.byte_start, location.mask_start),
    )


def _replace(
    storage: Storage,
    sources: Mapping[str, PartIndex],
    kept: Collection[ImageLocation],
    codec: Codec,
    images_per_part: int = IMAGES_PER_PART,
    bytes_per_part: int = BYTES_PER_PART,
) -> list[str] | None:
    """Write the images `kept` of the parts `sources` as new parts, whose names it returns, and delete those; None, and
    nothing has changed, where one of them is gone."""
    sizes = _view_sizes(storage, sources)
    written: list[str] = []
    try:
        for name, index in sources.items():
            check_columns(storage, name, index)
        for batch in _batches(kept, sources, images_per_part, bytes_per_part):
            images = _read(storage, sources, batch)
            name = new_part_name()
            written.append(name)
            index = write_part(
                storage,
                name,
                images,
                files=[found.file for found in batch],
                origin=sources[batch[0].part].origin,
                codec=codec,
            )
            for size in sizes:
                with writing(f"{storage.location}/{VIEWS}/{size}"):
                    derive_part(storage, name, index, size, codec)
        is_done = _all_there(storage, sources)
    except BaseException as error:  # Ctrl-C too
        with contextlib.suppress(StoreError):
            _delete_parts(storage, written)
        if isinstance(error, DamageError) and not _all_there(storage, sources):
            return None
        raise
    _delete_parts(storage, sources if is_done else written)
    return written if is_done else None


def _batches(
    kept: Collection[ImageLocation], sources: Mapping[str, PartIndex], images_per_part: int, bytes_per_part: int
) -> Iterator[list[ImageLocation]]:
    """The images of each new part: of one origin, as many as a writer commits at once."""
    batch: list[ImageLocation] = []
    num_bytes = 0
    for found in kept:
        is_full = len(batch) >= images_per_part or num_bytes >= bytes_per_part
        if batch and (is_full or sources[found.part].origin != sources[batch[0].part].origin):
            yield batch
            batch, num_bytes = [], 0
        batch.append(found)
        num_bytes += found.byte_stop - found.byte_start
    if batch:
        yield batch


def _read(storage: Storage, sources: Mapping[str, PartIndex], batch: list[ImageLocation]) -> list[Candidates]:
    images = read_located(
        storage,
        batch,
        lambda part, name: storage.open_column(f"{PARTS}/{part}/{name}", sources[part].columns.get(name)),
    )
    return [images[found.image_id] for found in batch]


def _all_there(storage: Storage, names: Iterable[str]) -> bool:
    return None not in storage.group_attributes([f"{PARTS}/{name}" for name in names])


def _view_sizes(storage: Storage, names: Collection[str]) -> list[int]:
    """Sizes of the views that have one of these parts."""
    sizes = [int(size) for size in storage.child_names(VIEWS) if size.isdecimal()]
    paths = {size: [f"{VIEWS}/{size}/{PARTS}/{name}" for name in names] for size in sizes}
    return [size for size in sizes if any(found is not None for found in storage.group_attributes(paths[size]))]


def _delete_parts(storage: Storage, names: Iterable[str]) -> None:
    """Delete parts, the views of each before it: none is ever without its part. The last name goes first: of several
    copies of an image the one that counts stays to the end."""
    roots = [f"{VIEWS}/{size}/{PARTS}" for size in storage.child_names(VIEWS)]
    viewed = {root: set(storage.child_names(root)) for root in roots}
    for name in sorted(names, reverse=True):
        for root in roots:
            if name in viewed[root]:
                storage.delete_group(f"{root}/{name}")
        storage.delete_group(f"{PARTS}/{name}")


def _delete_leftovers(storage: Storage) -> list[str]:
    """Delete what no writer will finish, and views whose part is gone; returns the paths."""
    # In this order: a part that others finish in between is not among the views, nor one that they delete.
    views = [f"{VIEWS}/{size}/{PARTS}/{name}" for size in storage.child_names(VIEWS) for name in _viewed(storage, size)]
    names = storage.child_names(PARTS)
    paths = [path for path in views if path.rpartition("/")[2] not in names]
    found = storage.group_attributes([f"{PARTS}/{name}" for name in names])
    for name, attributes in zip(names, found, strict=True):
        if attributes is None and is_abandoned(name):
            paths.append(f"{PARTS}/{name}")
    for path in paths:
        storage.delete_group(path)
    return paths


def _viewed(storage: Storage, size: str) -> list[str]:
    return storage.child_names(f"{VIEWS}/{size}/{PARTS}")
