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
import math
import os
import re
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.codec import DEFAULT_CODEC
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.run_lengths import (
    ImportReport,
    bad_file,
    check_packed_bytes,
    check_runs,
    decode_runs,
    decompress_counts,
    imported_manifest,
    list_json,
    parse_integers,
    parse_size,
    read_json,
    shown,
)
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter

__all__ = ["ImportReport", "export_coco", "import_coco", "imported_manifest"]

# Files parsed before the store is asked which of their images it lacks: one listing of its parts for all of them.
_FILES_PER_BATCH = 64
_FLOAT32_MAX = float(np.finfo(np.float32).max)


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
            _write_whole(path, json.dumps(_to_document(store[image_id], file_name, info), allow_nan=False))
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
            batch: list[_Document] = []
            failure: StoreError | None = None
            for path in paths[start : start + _FILES_PER_BATCH]:
                try:
                    document = _parse_document(path)
                    _check_distinct(document, path_of)
                except StoreError as error:
                    failure = error  # raised below: the files before it are imported first
                    break
                batch.append(document)
            missing = set(writer.missing([document.image_id for document in batch]))
            for row, document in enumerate(batch, start=1):
                if document.image_id in missing:
                    candidates = _to_candidates(document)
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


def _check_distinct(document: _Document, path_of: dict[int, Path]) -> None:
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


def _to_document(candidates: Candidates, file_name: str, info: dict[str, Any]) -> dict[str, Any]:
    height, width = candidates.height, candidates.width
    x0, y0, x1, y1 = candidates.boxes_xyxy.T
    columns = zip(
        candidates.area.tolist(),
        np.stack([x0, y0, x1 - x0, y1 - y0], axis=1).tolist(),
        _to_numbers(candidates.image_id, "predicted_iou", candidates.predicted_iou),
        _to_numbers(candidates.image_id, "stability_score", candidates.stability_score),
        _to_numbers(candidates.image_id, "points_xy", candidates.points_xy[:, 0]),
        _to_numbers(candidates.image_id, "points_xy", candidates.points_xy[:, 1]),
        strict=True,
    )
    annotations = []
    for row, (area, bbox, predicted_iou, stability_score, x, y) in enumerate(columns):
        # One mask at a time, unpacked and laid out in columns: 100 at once of a large image would take gigabytes.
        mask = np.unpackbits(candidates.bits[row], axis=1, count=width)
        counts = coco_mask.encode(np.asfortranarray(mask))["counts"].decode("ascii")
        annotations.append(
            {
                "id": row + 1,
                "segmentation": {"size": [height, width], "counts": counts},
                "area": area,
                "bbox": bbox,
                "predicted_iou": predicted_iou,
                "stability_score": stability_score,
                "point_coords": [[x, y]],
                "crop_box": [0, 0, width, height],
            }
        )
    image = {"image_id": candidates.image_id, "width": width, "height": height, "file_name": file_name}
    return {"info": info, "image": image, "annotations": annotations}


def _to_numbers(image_id: int, name: str, values: NDArray[np.float32]) -> list[float | None]:
    if np.isinf(values).any():
        raise StoreError(
            f"image {image_id}: expected a finite {name} or NaN, found an infinite one, which JSON cannot hold; "
            "cache this image anew with `semires cache-sam`"
        )
    return [None if math.isnan(value) else value for value in values.tolist()]


@dataclass(frozen=True, kw_only=True)
class _Document:
    """One file, parsed but for its masks."""

    path: Path
    image_id: int
    size: tuple[int, int]
    """Height and width in pixels."""
    annotations: list[Any]


def _parse_document(path: Path) -> _Document:
    document = read_json(path)
    if isinstance(document, list):
        return _parse_list(path, document)
    layout = 'SA-1B\'s {"image": {...}, "annotations": [...]} of one image, or a list of annotations'
    if not isinstance(document, dict) or not isinstance(document.get("image"), dict):
        raise bad_file(path, "", layout, shown(document))
    image, annotations = document["image"], document.get("annotations")
    if not isinstance(annotations, list):
        raise bad_file(path, "annotations", "a list", shown(annotations))
    image_id = image.get("image_id")
    if type(image_id) is not int or not -(2**63) <= image_id < 2**63:
        raise bad_file(path, "image", "an integer image_id", shown(image_id))
    size = parse_size(path, "image", image.get("height"), image.get("width"))
    return _Document(path=path, image_id=image_id, size=size, annotations=annotations)


def _parse_list(path: Path, annotations: list[Any]) -> _Document:
    numbers = re.findall("[0-9]+", path.stem)
    if not numbers or int(numbers[-1]) >= 2**63:
        expected = "an image id in the name of a file that holds a list of annotations"
        raise bad_file(path, "", expected, shown(path.stem), "rename it to <image id>.json")
    if not annotations:
        expected = "an annotation to take the image's size from"
        raise bad_file(path, "", expected, "none", "remove it, or write the image's size in SA-1B's layout")
    height, width = _segmentation(path, "annotation 0", annotations[0])["size"]
    size = parse_size(path, "annotation 0", height, width)
    return _Document(path=path, image_id=int(numbers[-1]), size=size, annotations=annotations)


def _segmentation(path: Path, where: str, annotation: object) -> dict[str, Any]:
    """The annotation's segmentation with counts and a size of two sides, none of them checked further."""
    found = annotation.get("segmentation") if isinstance(annotation, dict) else None
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(found, dict) or "counts" not in found or not isinstance(size, list) or len(size) != 2:
        expected = "a segmentation with counts and size [height, width]"
        # The public SemiRES folder: the same keys one level up.
        semires = isinstance(annotation, dict) and {"counts", "size"} <= annotation.keys()
        remedy = {"remedy": "import this folder with `--format semires`"} if semires else {}
        raise bad_file(path, where, expected, shown(annotation), **remedy)
    return found


def _to_candidates(document: _Document) -> Candidates:
    path, (height, width) = document.path, document.size
    check_packed_bytes(path, len(document.annotations), height, width)
    runs, numbers = [], []
    for index, annotation in enumerate(document.annotations):
        where = f"annotation {index}"
        segmentation = _segmentation(path, where, annotation)
        if segmentation["size"] != [height, width]:
            raise bad_file(path, where, f"the image's size {[height, width]}", shown(segmentation["size"]))
        counts = segmentation["counts"]
        lengths = (
            decompress_counts(path, where, counts) if isinstance(counts, str) else parse_integers(path, where, counts)
        )
        check_runs(path, where, lengths, num_pixels=height * width)
        runs.append(lengths)
        _check_area(path, where, annotation.get("area"), int(lengths[1::2].sum()))
        scores = [_parse_number(path, where, key, annotation) for key in ("predicted_iou", "stability_score")]
        numbers.append([*scores, *_parse_point(path, where, annotation)])
    columns = np.array(numbers, np.float32).reshape(len(runs), 4)
    return decode_runs(document.image_id, height, width, runs, columns[:, 0], columns[:, 1], columns[:, 2:])


def _check_area(path: Path, where: str, area: object, mask_area: int) -> None:
    """Areas are redundant, hence a checksum: StoreError where the file gives one that is not its mask's."""
    if area is not None and area != mask_area:
        raise bad_file(path, where, f"the mask's area of {mask_area} pixels", shown(area))


def _parse_point(path: Path, where: str, annotation: dict[str, Any]) -> list[float]:
    points = annotation.get("point_coords")
    if not isinstance(points, list) or len(points) != 1 or not isinstance(points[0], list) or len(points[0]) != 2:
        raise bad_file(path, where, "point_coords [[x, y]]", shown(points))
    return [_parse_number(path, where, name, dict(zip("xy", points[0], strict=True))) for name in "xy"]


def _parse_number(path: Path, where: str, key: str, values: Mapping[str, Any]) -> float:
    """A finite number, or NaN for null and NaN (which Python's JSON writes although JSON has none)."""
    if key not in values:
        raise bad_file(path, where, f"a number or null as {key}", "no such key")
    value = values[key]
    if value is None:
        return math.nan
    if type(value) not in (int, float) or abs(value) > _FLOAT32_MAX:
        raise bad_file(path, where, f"a number or null as {key}", shown(value))
    return float(value)
