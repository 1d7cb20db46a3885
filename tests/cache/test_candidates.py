import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semires.cache.candidates import Candidates

MakeCandidates = Callable[..., Candidates]


def test_from_masks__area_and_boxes_by_hand() -> None:
    masks = np.zeros((3, 4, 10), np.bool_)
    masks[1] = True
    masks[2, 1:3, 8] = True
    candidates = Candidates.from_masks(7, masks, [0.9, 0.8, 0.7], [1.0, 1.0, 0.96], [[0, 0], [5, 2], [8, 1]])
    assert candidates.num_masks == 3
    assert candidates.area.tolist() == [0, 40, 2]
    assert candidates.boxes_xyxy.tolist() == [[0, 0, 0, 0], [0, 0, 10, 4], [8, 1, 9, 3]]
    assert candidates.predicted_iou.dtype == np.float32
    assert candidates.points_xy.tolist() == [[0, 0], [5, 2], [8, 1]]


@given(
    masks=st.tuples(st.integers(0, 4), st.integers(1, 9), st.integers(1, 18)).flatmap(
        lambda shape: arrays(np.bool_, shape, elements=st.booleans())
    )
)
@settings(max_examples=50, deadline=None)
def test_masks__round_trip_and_tight_boxes(masks: np.ndarray) -> None:
    count = len(masks)
    candidates = Candidates.from_masks(0, masks, np.zeros(count), np.zeros(count), np.zeros((count, 2)))
    np.testing.assert_array_equal(candidates.masks(), masks)
    for mask, area, (x0, y0, x1, y1) in zip(masks, candidates.area, candidates.boxes_xyxy, strict=True):
        assert mask[y0:y1, x0:x1].sum() == mask.sum() == area
        if area:
            inside = mask[y0:y1, x0:x1]
            assert all(side.any() for side in (inside[0], inside[-1], inside[:, 0], inside[:, -1]))


def test_from_masks__no_masks_from_empty_lists() -> None:
    candidates = Candidates.from_masks(1, np.zeros((0, 5, 6), np.bool_), [], [], [])
    assert (candidates.num_masks, candidates.height, candidates.width) == (0, 5, 6)
    assert candidates.boxes_xyxy.shape == (0, 4)
    assert candidates.points_xy.shape == (0, 2)
    assert candidates.masks().shape == (0, 5, 6)


def test_from_masks__not_boolean() -> None:
    with pytest.raises(ValueError, match=r"masks expects bool \[M, H, W\], got uint8 \[1, 2, 2\]"):
        Candidates.from_masks(1, np.zeros((1, 2, 2), np.uint8), [0], [0], [[0, 0]])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"height": 7}, r"image 5: bits expects uint8 \[3, 7, 2\], got uint8 \[3, 6, 2\]"),
        ({"width": 0}, "size expects at least 1x1, got 6x0"),
        ({"image_id": 2**63}, "image_id expects an int64"),
        ({"area": np.zeros(3, np.int64)}, r"area expects int32 \[3\], got int64"),
        ({"area": np.full(3, 67, np.int32)}, "area expects 0 to 66 pixels"),
        ({"boxes_xyxy": np.zeros((2, 4), np.int32)}, r"boxes_xyxy expects int32 \[3, 4\], got int32 \[2, 4\]"),
        ({"predicted_iou": np.zeros(3)}, "predicted_iou expects float32"),
        ({"stability_score": np.zeros(4, np.float32)}, "stability_score expects"),
        ({"points_xy": np.zeros(6, np.float32)}, r"points_xy expects float32 \[3, 2\]"),
        ({"bits": np.full((3, 6, 2), 255, np.uint8)}, "zero padding bits right of column 10"),
    ],
)
def test_candidates__invalid(make_candidates: MakeCandidates, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(make_candidates(5), **change)  # type: ignore[arg-type]
