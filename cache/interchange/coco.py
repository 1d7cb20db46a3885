"""COCO: candidates as SA-1B's JSON files with COCO run lengths, out of a store and into one.

    {"info": {...},                                        the store's manifest; SA-1B has no such key
     "image": {"image_id", "width", "height", "file_name"},
     "annotations": [{"id",                                from 1, in the order of the candidates
                      "segmentation": {"size": [height, width], "counts": "..."},
                      "area", "bbox": [x, y, width, height],
                      "predicted_iou", "stability_score",  null where not known
                      "point_coords": [[x, y]],
                      "crop_box": [x, y, width, height]}, ...]}

One file an image, as segment-anything's README describes SA-1B. Its own `scripts/amg.py --convert-to-rle` writes just
the list of annotations, with the id only in the image's file name; that is read as well. float32 numbers are written
with the digits of the double that equals them, so that they come back to the bit.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from semires.cache.errors import StoreError
from semires.cache.interchange.coco_document import CocoDocument, parse_document, to_candidates, to_document
from semires.cache.interchange.run_lengths import (
    ImportReport,
    bad_file,
    imported_manifest,
    list_json,
    read_json,
)
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.codec import DEFAULT_CODEC
from semires.cache.writer import StoreWriter

__all__ = ["ImportReport", "export_coco", "import_coco", "imported_manifest"]

# Files parsed before the store is asked which of their images it lacks: one listing of its parts for all of them.
_FILES_PER_BATCH = 64


def export_coco(
    location: str | Path,
    folder: str | Path,
    *,
    file_names: Mapping[int, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write each image of the store at `location` (a path or fsspec URL) to `folder` as one JSON file, see above.

    `file_names` gives images' file names by id: `<stem>.json` is then the file, or `<stem>-<image_id>.json` where
    several names have that stem; an image without one becomes `<image_id>.json` with an empty `file_name`. `bbox` is
    [x, y, width, height] in whole pixels, so that x + width is the first column right of the mask (pycocotools' toBbox;
    SamAutomaticMaskGenerator, which stops at the last column of the mask, says one less). `crop_box` is the whole
    image: a store does not keep crops. Images without candidates have an empty list.

    A file appears whole or not at all, and those of this store that are there already are skipped, so an interrupted
    export resumes. Returns the number of files written. `on_progress(done, total)` is told the number of images at the
    start and after each. StoreError where there is no store, an image is damaged, two images would share a file, or
    a file in the way is of another store or image, or cannot be written.
    """
    store = CandidateStore(location)
    folder = Path(folder)
    names = _plan_names(store.image_ids.tolist(), file_names or {})
    info = store.manifest.to_attributes()
    num_written = 0
    if on_progress is not None:
        on_progress(0, len(names))
    for done, (image_id, (stem, file_name)) in enumerate(names.items(), start=1):
        path = folder / f"{stem}.json"
        if not _is_finished(path, image_id, info):
            _write_whole(path, json.dumps(to_document(store[image_id], file_name, info), allow_nan=False))
            num_written += 1
        if on_progress is not None:
            on_progress(done, len(names))
    return num_written


def import_coco(
    folder: str | Path,
    location: str | Path,
    manifest: Manifest,
    *,
    on_progress: Callable[[int, int], None] | None = None,
    images_per_part: int = 256,
    codec: str = str(DEFAULT_CODEC),
) -> ImportReport:
    """Add the masks in the `*.json` files of `folder` to the store at `location` (a path or fsspec URL).

    Each file holds one image, in SA-1B's layout or as the list that segment-anything's `scripts/amg.py` writes; of a
    list, the last number in the file's name is the image id (COCO_train2014_000000581857.json: 581857). Counts may be
    compressed (a text) or not (a list). Candidates keep the files' order, scores and points; areas and boxes are
    computed from the masks, and an `area` that differs from its mask's is refused as damage.

    Images that the store holds already are skipped, so an interrupted import resumes. `on_progress(done, total)` is
    told the number of files at the start and after each. `images_per_part` and `codec` are the StoreWriter's.

    Where every file carries the same intact manifest of the split of `manifest`, as `export_coco` writes it, that is
    the store's, so that `cache-sam` can go on with it; else it is `manifest`.

    StoreError where the folder holds no JSON file, two files are of one image, or a file is malformed; images of the
    files before it are kept.
    """
    paths = list_json(folder)
    num_present = num_added = num_masks = 0
    path_of: dict[int, Path] = {}
    if on_progress is not None:
        on_progress(0, len(paths))
    manifest = _common_manifest(paths, manifest)
    with StoreWriter(location, manifest, images_per_part=images_per_part, codec=codec) as writer:
        for start in range(0, len(paths), _FILES_PER_BATCH):
            batch: list[CocoDocument] = []
            failure: StoreError | None = None
            for path in paths[start : start + _FILES_PER_BATCH]:
                try:
                    document = parse_document(path)
                    _check_distinct(document, path_of)
                except StoreError as error:
                    failure = error  # raised below: the files before it are imported first
                    break
                batch.append(document)
            missing = set(writer.missing([document.image_id for document in batch]))
            for row, document in enumerate(batch, start=1):
                if document.image_id in missing:
                    candidates = to_candidates(document)
                    writer.add(candidates)
                    num_added += 1
                    num_masks += candidates.num_masks
                else:
                    num_present += 1
                if on_progress is not None:
                    on_progress(start + row, len(paths))
            if failure is not None:
                raise failure
    return ImportReport(num_present=num_present, num_added=num_added, num_masks=num_masks)


def _common_manifest(paths: Sequence[Path], asked: Manifest) -> Manifest:
    """The manifest that all files carry, with the count of `asked` where it has none; `asked` where there is none."""
    common: dict[str, Any] | None = None
    for path in paths:
        try:
            document = read_json(path)
        except StoreError:
            continue  # the import says what is wrong with it; mended, it must not change the manifest
        info = document.get("info") if isinstance(document, dict) else None
        # A foreign file ends the look at once: nobody waits for a second reading of what has no manifest.
        if not isinstance(info, dict) or common not in (None, info):
            return asked
        if common is None:
            try:
                carried = Manifest.from_attributes(info)
            except StoreError:
                return asked
            if carried.split != asked.split:
                return asked
            common = info
    if common is None:
        return asked
    return carried if carried.num_images is not None else replace(carried, num_images=asked.num_images)


def _check_distinct(document: CocoDocument, path_of: dict[int, Path]) -> None:
    """Add the document to the files by image id; StoreError where another file is of the same image."""
    other = path_of.setdefault(document.image_id, document.path)
    if other != document.path:
        raise bad_file(document.path, "", "one file an image", f"image {document.image_id} also in {other}")


def _plan_names(image_ids: Sequence[int], file_names: Mapping[int, str]) -> dict[int, tuple[str, str]]:
    """(stem of the JSON file, file name of the image or "") of each image."""
    planned: dict[int, tuple[str, str]] = {}
    image_of: dict[str, int] = {}
    # Of all file names, not only those that are stored yet: a store that grows is exported under the same names.
    num_named = Counter(Path(file_name).stem for file_name in file_names.values())
    for image_id in image_ids:
        file_name = file_names.get(image_id, "")
        stem = Path(file_name).stem or str(image_id)
        if num_named[stem] > 1:
            stem = f"{stem}-{image_id}"
        if image_of.setdefault(stem, image_id) != image_id:
            raise StoreError(
                f"{stem}.json: expected one image a file, found images {image_of[stem]} and {image_id}; "
                "give them file names that differ before the extension"
            )
        planned[image_id] = stem, file_name
    return planned


def _is_finished(path: Path, image_id: int, info: dict[str, Any]) -> bool:
    """Whether `path` was exported before; StoreError where it is anything but this store's file of this image."""
    if not path.exists():
        return False
    try:
        document = json.loads(path.read_bytes())
        if document["info"] == info and document["image"]["image_id"] == image_id:
            return True
    except (OSError, ValueError, RecursionError, LookupError, TypeError):
        pass  # no export at all
    raise StoreError(
        f"{path}: expected nothing, or this store's earlier export of image {image_id}, found another file; "
        "choose an empty folder"
    )


def _write_whole(path: Path, text: str) -> None:
    """Write the file under another name and rename it: a kill leaves it whole or not there."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            temporary.write_text(text, encoding="ascii")
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"{path}: expected a file that can be written, found: {reason}; free or change it") from error
