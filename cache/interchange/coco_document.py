"""COCO document: one image's candidates as the JSON that coco.py writes to a file and reads from one.

Layout and sources are in coco.py, which goes through the folder; tests of both are in
tests/cache/interchange/test_coco.py.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.run_lengths import (
    bad_file,
    check_packed_bytes,
    check_runs,
    decode_runs,
    decompress_counts,
    parse_integers,
    parse_size,
    read_json,
    shown,
)

_FLOAT32_MAX = float(np.finfo(np.float32).max)


def to_document(candidates: Candidates, file_name: str, info: dict[str, Any]) -> dict[str, Any]:
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


@dataclass(frozen=True, kw_only=True)
class CocoDocument:
    """One file, parsed but for its masks."""

    path: Path
    image_id: int
    size: tuple[int, int]
    """Height and width in pixels."""
    annotations: list[Any]


def parse_document(path: Path) -> CocoDocument:
    """Read a file in SA-1B's layout or amg.py's list; StoreError where it is neither."""
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
    return CocoDocument(path=path, image_id=image_id, size=size, annotations=annotations)


def _parse_list(path: Path, annotations: list[Any]) -> CocoDocument:
    numbers = re.findall("[0-9]+", path.stem)
    if not numbers or int(numbers[-1]) >= 2**63:
        expected = "an image id in the name of a file that holds a list of annotations"
        raise bad_file(path, "", expected, shown(path.stem), "rename it to <image id>.json")
    if not annotations:
        expected = "an annotation to take the image's size from"
        raise bad_file(path, "", expected, "none", "remove it, or write the image's size in SA-1B's layout")
    height, width = _segmentation(path, "annotation 0", annotations[0])["size"]
    size = parse_size(path, "annotation 0", height, width)
    return CocoDocument(path=path, image_id=int(numbers[-1]), size=size, annotations=annotations)


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


def to_candidates(document: CocoDocument) -> Candidates:
    """Decode the masks; StoreError where one is malformed, of another size than the image, or of another area."""
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
