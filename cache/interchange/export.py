"""Exporting: a store's candidates as SA-1B's JSON files with COCO run lengths, which coco.py reads back.

    {"info": {...},                                        the store's manifest; SA-1B has no such key
     "image": {"image_id", "width", "height", "file_name"},
     "annotations": [{"id",                                from 1, in the order of the candidates
                      "segmentation": {"size": [height, width], "counts": "..."},
                      "area", "bbox": [x, y, width, height],
                      "predicted_iou", "stability_score",  null where not known
                      "point_coords": [[x, y]],
                      "crop_box": [x, y, width, height]}, ...]}

One file an image, as segment-anything's README describes SA-1B. float32 numbers are written with the digits of the
double that equals them, so that they come back to the bit.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore


def export_coco(
    location: str | Path,
    folder: str | Path,
    *,
    file_names: Mapping[int, str] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> int:
    """Write each image of the store at `location` (a path or fsspec URL) to `folder` as one JSON file, see above.

    `file_names` gives images' files by id, as paths below the image folder: `<stem>.json` is then the file, or
    `<stem>-<image_id>.json` where several have that stem; an image without one becomes `<image_id>.json` with an empty
    `file_name`. `bbox` is
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


def _to_document(candidates: Candidates, file_name: str, info: dict[str, Any]) -> dict[str, Any]:
    """The JSON of one image, with the store's manifest as `info`; StoreError where a score is infinite."""
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
