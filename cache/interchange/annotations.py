"""Annotations: one mask in COCO's JSON, whatever the layout of its file: decoded, and held against what else it says.

{"segmentation": {"size": [height, width], "counts": "..."},   or counts as a list, or polygons [[x1, y1, ...], ...]
 "area", "bbox": [x, y, width, height],                        of the mask; compared with it where they are there
 "predicted_iou", or "score",                                  null or missing where not known
 "stability_score", "point_coords": [[x, y]]}                  the same; the point may also be an empty list
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.interchange.files import bad_file, shown
from semires.cache.interchange.runs import (
    Box,
    box_of_runs,
    check_runs,
    decompress_counts,
    draw_polygons,
    parse_integers,
)

_FLOAT32_MAX = float(np.finfo(np.float32).max)

# Pixels by which an edge of a box may differ: SamAutomaticMaskGenerator's ends at the last column of the mask, others
# behind it, polygons' boxes are not rounded.
_BOX_SLACK = 2.0

# How much of a box the mask's must share for another reading of its runs to be the right one.
_FITS = 0.5

# COCO's own areas are of polygons, not of pixels: 0.73 to 1.32 of the mask's among 842 of them.
_AREA_FACTOR, _AREA_SLACK = 4, 16


@dataclass(frozen=True, kw_only=True, eq=False)
class ParsedMask:
    """One annotation's mask, not yet decoded, and its scores."""

    runs: NDArray[np.int64]
    """See runs.py."""
    predicted_iou: float
    """NaN where not known, as for the others."""
    stability_score: float
    point_xy: tuple[float, float]


def parse_annotation(
    path: Path, where: str, annotation: object, size: tuple[int, int], *, is_made_of_mask: bool
) -> ParsedMask:
    """Parse an annotation of an image of `size` (height, width).

    `is_made_of_mask`: the file's area and box were computed from its masks, so that they must be the mask's (an edge
    may differ by 2 pixels). Else they may be a polygon's, a detector's box or a crowd's area, and are refused only
    where they cannot be of this mask.

    StoreError where the annotation is malformed, of another size, or contradicts its mask.
    """
    if not isinstance(annotation, dict):
        raise bad_file(path, where, "an annotation with a segmentation", shown(annotation))
    runs = _parse_segmentation(path, where, annotation, size)
    _check_area(path, where, annotation, int(runs[1::2].sum()), is_made_of_mask)
    bbox = annotation.get("bbox")
    if bbox is not None:
        is_drawn = isinstance(annotation["segmentation"], list)
        _check_box(path, where, _parse_box(path, where, bbox), runs, size, is_made_of_mask, is_drawn)
    return ParsedMask(
        runs=runs,
        predicted_iou=_parse_number(
            path, where, "predicted_iou" if "predicted_iou" in annotation else "score", annotation
        ),
        stability_score=_parse_number(path, where, "stability_score", annotation),
        point_xy=_parse_point(path, where, annotation.get("point_coords")),
    )


def stated_size(path: Path, where: str, annotation: object) -> tuple[object, object]:
    """Height and width as the annotation's run lengths state them, unchecked; StoreError where there are none."""
    found = annotation.get("segmentation") if isinstance(annotation, dict) else None
    size = found.get("size") if isinstance(found, dict) else None
    if not isinstance(size, list) or len(size) != 2:
        raise _no_segmentation(path, where, annotation)
    return size[0], size[1]


def _parse_segmentation(path: Path, where: str, annotation: dict[str, Any], size: tuple[int, int]) -> NDArray[np.int64]:
    height, width = size
    segmentation = annotation.get("segmentation")
    if isinstance(segmentation, list) and segmentation:
        return draw_polygons(path, where, segmentation, height, width)
    if not isinstance(segmentation, dict) or "counts" not in segmentation:
        raise _no_segmentation(path, where, annotation)
    if segmentation.get("size") != [height, width]:
        raise bad_file(path, where, f"the image's size {[height, width]}", shown(segmentation.get("size")))
    counts = segmentation["counts"]
    runs = decompress_counts(path, where, counts) if isinstance(counts, str) else parse_integers(path, where, counts)
    check_runs(path, where, runs, num_pixels=height * width)
    return runs


def _no_segmentation(path: Path, where: str, annotation: object) -> Exception:
    expected = "a segmentation with counts and size [height, width]"
    # The public SemiRES folder: the same keys one level up.
    is_semires = isinstance(annotation, dict) and {"counts", "size"} <= annotation.keys()
    remedy = {"remedy": "import this folder with `--format semires`"} if is_semires else {}
    return bad_file(path, where, expected, shown(annotation), **remedy)


def _check_area(path: Path, where: str, annotation: dict[str, Any], mask_area: int, is_made_of_mask: bool) -> None:
    """Areas are redundant, hence a checksum: StoreError where the file gives one that is not its mask's."""
    area = annotation.get("area")
    # COCO's crowds have areas of their own: 0.60 to 0.97 of 10 of them.
    if area is None or area == mask_area or (not is_made_of_mask and annotation.get("iscrowd") == 1):
        return
    if not is_made_of_mask and type(area) in (int, float):
        low, high = sorted((mask_area, area))
        if low >= 0 and (high <= _AREA_FACTOR * low or high - low <= _AREA_SLACK):
            return
    raise bad_file(path, where, f"the mask's area of {mask_area} pixels", shown(area))


def _parse_box(path: Path, where: str, bbox: object) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 of a file's [x, y, width, height]."""
    if (
        not isinstance(bbox, list)
        or len(bbox) != 4
        or not set(map(type, bbox)) <= {int, float}
        or not all(abs(value) <= _FLOAT32_MAX for value in bbox)
    ):
        raise bad_file(path, where, "bbox [x, y, width, height] in numbers", shown(bbox))
    x, y, width, height = map(float, bbox)
    return x, y, x + width, y + height


def _check_box(
    path: Path,
    where: str,
    stated: tuple[float, float, float, float],
    runs: NDArray[np.int64],
    size: tuple[int, int],
    is_made_of_mask: bool,
    is_drawn: bool,
) -> None:
    """StoreError where the box that the file states is not its mask's; most of all where it is that of the same runs
    read otherwise, which garbles every mask of the file and which no area tells."""
    height, width = size
    box = box_of_runs(runs, height)
    # Some detectors write boxes of zeros for what they have no box of, others have a box of an empty mask.
    if _is_close(box, stated) or (not is_made_of_mask and (0, 0, 0, 0) in (box, stated)):
        return
    shares = _shared(box, stated)
    remedy = "write them again, or leave out `bbox` where it is not the masks'"
    if not is_drawn:
        across = box_of_runs(runs, width)
        by_rows: Box = (across[1], across[0], across[3], across[2])
        for other, meaning in (
            (by_rows, "runs along the rows of the image, not down its columns"),
            (across, "size as [width, height], not [height, width]"),
        ):
            if _shared(other, stated) >= _FITS > shares or (is_made_of_mask and _is_close(other, stated)):
                raise bad_file(path, where, "COCO's run lengths", f"by its bbox {meaning}", remedy)
    if is_made_of_mask or shares == 0:
        x0, y0, x1, y1 = box
        shape = [round(value, 2) for value in (stated[0], stated[1], stated[2] - stated[0], stated[3] - stated[1])]
        raise bad_file(path, where, f"the mask's bbox {[x0, y0, x1 - x0, y1 - y0]}", f"{shape}", remedy)


def _is_close(box: Box, stated: tuple[float, float, float, float]) -> bool:
    return all(abs(ours - theirs) <= _BOX_SLACK for ours, theirs in zip(box, stated, strict=True))


def _shared(box: Box, stated: tuple[float, float, float, float]) -> float:
    """IoU of two boxes x0, y0, x1, y1; 0 where either is empty."""
    sides = [min(box[axis + 2], stated[axis + 2]) - max(box[axis], stated[axis]) for axis in (0, 1)]
    both = max(sides[0], 0) * max(sides[1], 0)
    union = sum((one[2] - one[0]) * (one[3] - one[1]) for one in (box, stated)) - both
    return both / union if both > 0 else 0


def _parse_point(path: Path, where: str, points: object) -> tuple[float, float]:
    if points is None or points in ([], [[]]):
        return math.nan, math.nan
    if not isinstance(points, list) or len(points) != 1 or not isinstance(points[0], list) or len(points[0]) != 2:
        raise bad_file(path, where, "point_coords [[x, y]]", shown(points))
    named = dict(zip("xy", points[0], strict=True))
    return _parse_number(path, where, "x", named), _parse_number(path, where, "y", named)


def _parse_number(path: Path, where: str, key: str, values: Mapping[str, Any]) -> float:
    """A finite number, or NaN for what is missing, null or NaN (which Python's JSON writes although JSON has none)."""
    value = values.get(key)
    if value is None:
        return math.nan
    if type(value) not in (int, float) or abs(value) > _FLOAT32_MAX:
        raise bad_file(path, where, f"a number or null as {key}", shown(value))
    return float(value)
