from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from semires.cache.errors import StoreError
from semires.cache.interchange.packing import pack_runs
from semires.cache.interchange.runs import (
    box_of_runs,
    check_runs,
    decompress_counts,
    draw_polygons,
    parse_integers,
)

SMALL_MASKS = st.tuples(st.integers(1, 9), st.integers(1, 18)).flatmap(lambda shape: arrays(np.bool_, shape))
PATH = Path("7.json")


def encode(mask: NDArray[np.bool_]) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))


@given(mask=SMALL_MASKS)
@settings(max_examples=60, deadline=None)
def test_decompress_counts__decodes_what_pycocotools_encodes(mask: NDArray[np.bool_]) -> None:
    runs = decompress_counts(PATH, "mask 0", encode(mask)["counts"].decode())
    check_runs(PATH, "mask 0", runs, num_pixels=mask.size)
    np.testing.assert_array_equal(pack_runs([runs], *mask.shape)[0], np.packbits(mask, axis=1))


@given(mask=SMALL_MASKS)
@settings(max_examples=60, deadline=None)
def test_box_of_runs__is_pycocotools(mask: NDArray[np.bool_]) -> None:
    encoded = encode(mask)
    runs = decompress_counts(PATH, "mask 0", encoded["counts"].decode())
    x0, y0, x1, y1 = box_of_runs(runs, mask.shape[0])
    assert [x0, y0, x1 - x0, y1 - y0] == coco_mask.toBbox(encoded).tolist()


def test_box_of_runs__empty_runs_are_none() -> None:
    assert box_of_runs(np.array([5, 0, 3, 1, 3]), 4) == (2, 0, 3, 1)
    assert box_of_runs(np.array([12]), 4) == box_of_runs(np.array([12, 0]), 4) == (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(3))
def test_decompress_counts__large_counts(seed: int) -> None:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, 10 ** rng.integers(0, 7, 40)).tolist()
    uncompressed = {"counts": lengths, "size": [sum(lengths), 1]}
    counts = coco_mask.frPyObjects(uncompressed, sum(lengths), 1)["counts"].decode()
    assert decompress_counts(PATH, "mask 0", counts).tolist() == lengths


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ("", "expected counts that end with a whole number, found ''"),
        ("13P", "expected counts that end with a whole number, found '13P'"),
        ("PP", "expected counts that end with a whole number, found 'PP'"),
        ("P" * 7 + "1", "expected counts of at most 7 characters each, found one of 8"),
        ("13 7", 'expected counts of characters "0" to "o", found '),
        ("13\ud800", 'expected counts of characters "0" to "o", found '),
    ],
)
def test_decompress_counts__malformed(counts: str, message: str) -> None:
    with pytest.raises(StoreError, match=rf"7\.json: mask 3: {message}"):
        decompress_counts(PATH, "mask 3", counts)


@pytest.mark.parametrize("value", [None, "12", [1, "2"], [12.0], [True]])
def test_parse_integers__refused(value: object) -> None:
    with pytest.raises(StoreError, match="expected counts as a list of integers, found "):
        parse_integers(PATH, "", value)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([-1, 13], "expected runs of 0 to 12 pixels, found a run of -1"),
        ([2**61, 12], "expected runs of 0 to 12 pixels, found a run of 2305"),
        ([3, 4], "expected runs that sum to the size's 12 pixels, found a sum of 7"),
        ([], "expected runs that sum to the size's 12 pixels, found a sum of 0"),
    ],
)
def test_check_runs__refused(runs: list[int], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        check_runs(PATH, "", np.array(runs, np.int64), num_pixels=12)


def test_draw_polygons__nothing_to_draw() -> None:
    assert draw_polygons(PATH, "", [[1, 2], [], [1, 2, 3, 4]], 6, 5).tolist() == [30]


@pytest.mark.parametrize(
    ("polygons", "message"),
    [
        ([1, 2, 3], r"expected polygons as lists \[x1, y1, x2, y2, …\], found 1"),
        ([[1, 2, 3]], r"expected polygons as lists .*, found \[1, 2, 3\]"),
        ([[1, 2, 3, "4"]], "expected polygons as lists"),
        ([[0, 0, 5, 0, 10**400, 3]], "expected polygon points near the 6 x 5 image, found 1000"),
        ([[0, 0, 5, 0, float("nan"), 3]], "expected polygon points near the 6 x 5 image, found nan"),
        ([[0, 0, 5, 0, 3, -7]], "expected polygon points near the 6 x 5 image, found -7"),
    ],
)
def test_draw_polygons__refused(polygons: list[Any], message: str) -> None:
    with pytest.raises(StoreError, match=message):
        draw_polygons(PATH, "", polygons, 6, 5)
