import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from semires.cache.errors import StoreError
from semires.cache.interchange.annotations import ParsedMask, parse_annotation

PATH = Path("7.json")
HEIGHT, WIDTH = 30, 50
BOX = [12, 5, 20, 9]  # x, y, width, height


def runs_of(pixels: NDArray[np.bool_]) -> list[int]:
    cuts = np.flatnonzero(np.diff(pixels)) + 1
    return [0] * int(pixels[0]) + np.diff([0, *cuts, len(pixels)]).tolist()


def rectangle(box: list[int] = BOX) -> NDArray[np.bool_]:
    x, y, width, height = box
    mask = np.zeros((HEIGHT, WIDTH), np.bool_)
    mask[y : y + height, x : x + width] = True
    return mask


def annotation(mask: NDArray[np.bool_] | None = None, **changes: Any) -> dict[str, Any]:
    pixels = rectangle() if mask is None else mask
    return {"segmentation": {"size": [HEIGHT, WIDTH], "counts": runs_of(pixels.T.reshape(-1))}} | changes


def parse(record: object, is_made_of_mask: bool = True) -> ParsedMask:
    return parse_annotation(PATH, "annotation 3", record, (HEIGHT, WIDTH), is_made_of_mask=is_made_of_mask)


@pytest.mark.parametrize("points", [None, [], [[]], [[None, None]], [[math.nan, math.nan]]])
def test_parse__no_point(points: object) -> None:
    found = parse(annotation(point_coords=points))
    assert np.isnan(found.point_xy).all()
    assert math.isnan(found.predicted_iou)
    assert np.isnan(parse(annotation()).point_xy).all()


def test_parse__scores() -> None:
    found = parse(annotation(predicted_iou=0.75, stability_score=1, point_coords=[[3, 4.5]], score=0.5))
    assert (found.predicted_iou, found.stability_score, found.point_xy) == (0.75, 1, (3, 4.5))
    assert parse(annotation(score=0.5)).predicted_iou == 0.5
    assert math.isnan(parse(annotation(score=None)).predicted_iou)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"predicted_iou": "1"}, "expected a number or null as predicted_iou, found '1'"),
        ({"predicted_iou": 1e39}, "expected a number or null as predicted_iou"),
        ({"stability_score": True}, "expected a number or null as stability_score"),
        ({"score": math.inf}, "expected a number or null as score, found inf"),
        ({"point_coords": [1, 2]}, r"expected point_coords \[\[x, y\]\], found \[1, 2\]"),
        ({"point_coords": [[1]]}, r"expected point_coords \[\[x, y\]\], found \[\[1\]\]"),
        ({"point_coords": [[1, "2"]]}, "expected a number or null as y, found '2'"),
        ({"area": 181}, "expected the mask's area of 180 pixels, found 181"),
        ({"area": "180"}, "expected the mask's area of 180 pixels, found '180'"),
        ({"bbox": [1, 2, 3]}, r"expected bbox \[x, y, width, height\] in numbers, found \[1, 2, 3\]"),
        ({"bbox": [1, 2, 3, math.nan]}, r"expected bbox \[x, y, width, height\] in numbers"),
        ({"bbox": [12, 5, 20, 12]}, r"expected the mask's bbox \[12, 5, 20, 9\], found \[12.0, 5.0, 20.0, 12.0\]"),
        ({"bbox": [0, 0, 0, 0]}, r"expected the mask's bbox \[12, 5, 20, 9\], found"),
    ],
)
def test_parse__made_of_mask_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(StoreError, match=f"annotation 3: {message}"):
        parse(annotation(**changes))


@pytest.mark.parametrize("bbox", [BOX, [12, 5, 19, 8], [12.0, 5.0, 20.0, 9.0], [11, 4, 22, 11], None])
def test_parse__boxes_of_generators(bbox: object) -> None:
    """segment-anything's end at the last column, pycocotools' behind it."""
    assert parse(annotation(bbox=bbox, area=180)).runs.sum() == HEIGHT * WIDTH


@pytest.mark.parametrize("is_made_of_mask", [True, False])
def test_parse__runs_along_the_rows(is_made_of_mask: bool) -> None:
    """Its area is that of the mask; only the box tells."""
    record = annotation(bbox=BOX, area=180)
    record["segmentation"]["counts"] = runs_of(rectangle().reshape(-1))
    with pytest.raises(StoreError, match="by its bbox runs along the rows of the image, not down its columns; write"):
        parse(record, is_made_of_mask)


@pytest.mark.parametrize("is_made_of_mask", [True, False])
def test_parse__size_the_wrong_way_round(is_made_of_mask: bool) -> None:
    record = annotation(bbox=BOX)
    record["segmentation"]["size"] = [WIDTH, HEIGHT]
    with pytest.raises(StoreError, match=r"by its bbox size as \[width, height\], not \[height, width\]"):
        parse_annotation(PATH, "", record, (WIDTH, HEIGHT), is_made_of_mask=is_made_of_mask)


def test_parse__a_detectors_box_and_a_polygons_area() -> None:
    """What is no measure of the mask may differ from it, but not be another's."""
    for changes in (
        {"bbox": [5, 2, 40, 25]},
        {"bbox": [0, 0, 0, 0]},
        {"bbox": [14.2, 6, 3, 3]},
        {"area": 47.5},
        {"area": 3000.5, "iscrowd": 1},
    ):
        assert parse(annotation(**changes), is_made_of_mask=False).runs[0] > 0
    assert parse(annotation(np.zeros((HEIGHT, WIDTH), np.bool_), bbox=BOX), is_made_of_mask=False).runs.tolist() == [
        1500
    ]
    for changes, message in (
        ({"bbox": [1, 15, 11, 9]}, r"expected the mask's bbox .*, found \[1.0, 15.0, 11.0, 9.0\]"),
        ({"area": 30}, "expected the mask's area of 180 pixels, found 30"),
        ({"area": True}, "expected the mask's area of 180 pixels, found True"),
    ):
        with pytest.raises(StoreError, match=message):
            parse(annotation(**changes), is_made_of_mask=False)


def test_parse__polygons() -> None:
    drawn = parse({"segmentation": [[12, 5, 32, 5, 32, 14, 12, 14]], "bbox": BOX, "area": 180.0})
    assert drawn.runs.tolist() == runs_of(rectangle().T.reshape(-1))
