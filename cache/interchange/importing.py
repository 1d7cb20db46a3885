"""Importing: masks that somebody has already, in any format that is known, into a store.

A format is a module with one function that looks through the files and says which images they hold and how each is
read (`Found`); this module brings those into the store that it lacks. Files are looked through as a whole before
anything is stored, and the first image is read before there is a store: what is refused leaves none behind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.files import FileRecord
from semires.cache.interchange import coco, label_pngs, mask_pngs, npy, semires
from semires.cache.interchange.files import bad_file
from semires.cache.interchange.found import Found, FoundImage, LoadRecords, Request
from semires.cache.interchange.known_images import KnownImages
from semires.cache.schema import IMPORTED, Manifest
from semires.cache.storage.codec import DEFAULT_CODEC
from semires.cache.writer import StoreWriter

FORMATS: Mapping[str, Callable[[Request], Found]] = {
    "coco": coco.look_through,
    "masks": mask_pngs.look_through,
    "labels": label_pngs.look_through,
    "npy": npy.look_through,
    "semires": semires.look_through,
}
"""What is known, by the name that a user gives."""


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import found and did."""

    num_present: int
    """Images that the store already held; they are left as they are."""
    num_added: int
    """Images that were added."""
    num_masks: int
    """Candidates of the added images."""
    left_out: tuple[str, ...] = field(default=())
    """Files and images that were not imported, each with the reason."""


def imported_manifest(split: str, num_images: int | None = None) -> Manifest:
    """The manifest of a store whose candidates were made elsewhere: with which SAM and settings is not known.

    `num_images` is the number of images of the split where the caller knows it. StoreError for an empty split.
    """
    return Manifest(split=split, sam=IMPORTED, sam_sha256="unknown", generator={}, num_images=num_images)


def import_masks(
    source: str | Path,
    location: str | Path,
    manifest: Manifest,
    *,
    format: str,
    load_records: LoadRecords,
    images: KnownImages | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    images_per_part: int = 256,
    codec: str = str(DEFAULT_CODEC),
    origin: str = "",
    file_of: Callable[[int], FileRecord | None] | None = None,
) -> ImportReport:
    """Add the masks in the folder or file `source` to the store at `location` (a path or fsspec URL).

    `format` is a name in `FORMATS`, whose module says what its files look like. Masks keep the files' order, scores and
    points; areas and boxes are computed from the masks. `images` are those that the masks may be of, by which names
    become ids: what is of others is left out, and reported; None: any. Images that the store holds already are
    skipped, so an interrupted import resumes. `on_progress(done, total)` is told the number of images at the start and
    after each. `images_per_part`, `codec` and `origin` are the StoreWriter's; `file_of` gives an image's file as it is
    now, by its id.

    Where every file carries the same intact manifest of the split of `manifest`, as `export_coco` writes it, that is
    the store's, so that `cache-sam` can go on with it; else it is `manifest`. Of what a manifest was made for,
    which may have been other files, none is recorded.

    StoreError where there is nothing to import, an image is in two places, or a file is malformed or contradicts itself
    or the known images. Images read before a malformed mask are kept; of none, there is no store.
    """
    known = images or KnownImages()
    with ExitStack() as resources:
        found = FORMATS[format](
            Request(source=Path(source), images=known, load_records=load_records, resources=resources)
        )
        _check(found, Path(source), known)
        # Before there is a store, so that a refusal leaves none behind.
        ready = {found.images[0].image_id: _read(found.images[0], known)}
        total, num_masks = len(found.images), 0
        made = _manifest(found, manifest)
        record = file_of if file_of is not None and made.sam == IMPORTED else lambda image_id: None
        with StoreWriter(location, made, images_per_part=images_per_part, codec=codec, origin=origin) as writer:
            missing = set(writer.missing(image.image_id for image in found.images))
            done = num_present = total - len(missing)
            if on_progress is not None:
                on_progress(done, total)
            for image in found.images:
                if image.image_id not in missing:
                    continue
                is_ready = image.image_id in ready
                candidates = ready.pop(image.image_id) if is_ready else _read(image, known)
                writer.add(candidates, record(image.image_id))
                num_masks += candidates.num_masks
                del candidates  # none outlives its turn: they may be large
                done += 1
                if on_progress is not None:
                    on_progress(done, total)
    return ImportReport(
        num_present=num_present, num_added=len(missing), num_masks=num_masks, left_out=tuple(found.left_out)
    )


def _manifest(found: Found, asked: Manifest) -> Manifest:
    """The manifest that the files carry, with the count of `asked` where it has none; of another split, `asked`."""
    carried = found.manifest
    if carried is None or carried.split != asked.split:
        return asked
    return carried if carried.num_images is not None else replace(carried, num_images=asked.num_images)


def _check(found: Found, source: Path, known: KnownImages) -> None:
    """StoreError where no image was found, one of another size than is known, or one twice."""
    if not found.images:
        what = f"masks of images of {known.where}" if known.file_names else "masks"
        raise StoreError(
            f"{source}: expected {what}, found none ({_some(found.left_out)}); give their folder, their --format, or "
            "the images that they are of"
        )
    path_of: dict[int, Path] = {}
    for image in found.images:
        if image.size is not None:
            _check_size(image, image.size, known)
        if image.image_id in path_of:
            other = path_of[image.image_id]
            twice = "twice" if other == image.path else f"also in {other}"
            raise bad_file(image.path, "", "an image in one place", f"image {image.image_id} {twice}", "remove one")
        path_of[image.image_id] = image.path


def _read(image: FoundImage, known: KnownImages) -> Candidates:
    candidates = image.load()
    _check_size(image, (candidates.height, candidates.width), known)
    return candidates


def _check_size(image: FoundImage, size: tuple[int, int], known: KnownImages) -> None:
    expected = known.sizes.get(image.image_id, size)
    if size != expected:
        named = f"image {image.image_id} ({known.file_names.get(image.image_id, '')!r}) of {known.where}"
        raise bad_file(
            image.path,
            "",
            f"masks of the {expected[0]} x {expected[1]} pixels (height x width) of {named}",
            f"{size[0]} x {size[1]}",
            "import the masks of the images as they are",
        )


def _some(left_out: Sequence[str]) -> str:
    return f"left out: {left_out[0]}{', …' if len(left_out) > 1 else ''}" if left_out else "no image"
