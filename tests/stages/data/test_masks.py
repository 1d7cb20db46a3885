import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pycocotools import mask as coco_mask
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import resize

from semires.stages.data.errors import InputError
from semires.stages.data.masks import (
    decode_segmentation,
    encode_mask,
    is_empty,
    nearest_indices,
    parse_segmentation,
    resize_mask,
    unite_segmentations,
)


def square(left: int, top: int, side: int) -> list[float]:
    return [left, top, left + side, top, left + side, top + side, left, top + side]


def decode(segmentation: object, height: int, width: int) -> np.ndarray:
    parsed = parse_segmentation(segmentation, height, width)
    assert parsed is not None
    mask = decode_segmentation(parsed, height, width)
    assert mask.shape == (height, width)
    assert mask.dtype == np.bool_
    return mask


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths of a mask in column order, beginning with zeros, one pixel at a time."""
    runs, value = [0], False
    for pixel in mask.T.reshape(-1):
        if pixel != value:
            runs.append(0)
            value = not value
        runs[-1] += 1
    return runs


def test_decode_segmentation__polygons_are_merged() -> None:
    mask = decode([square(1, 2, 3), square(6, 0, 2)], 8, 10)
    expected = np.zeros((8, 10), dtype=bool)
    expected[2:5, 1:4] = True
    expected[0:2, 6:8] = True
    assert np.array_equal(mask, expected)
    assert mask.flags.c_contiguous


def test_decode_segmentation__polygon_of_two_points_is_skipped() -> None:
    # pycocotools would take [x, y, x, y] in front for a box.
    mask = decode([[0, 0, 5, 5], square(1, 1, 2)], 8, 10)
    assert mask.sum() == 4
    assert parse_segmentation([[0, 0, 5, 5]], 8, 10) is None
    assert parse_segmentation([], 8, 10) is None


def test_decode_segmentation__polygon_over_the_border_is_clipped() -> None:
    mask = decode([square(-3, -2, 5)], 8, 10)
    assert mask[:3, :2].all()
    assert mask.sum() == 6


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.02, 0.5, 1.0]))
def test_decode_segmentation__run_lengths(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    size = [height, width]
    assert np.array_equal(decode({"size": size, "counts": runs_of(mask)}, height, width), mask)
    compressed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert np.array_equal(decode({"size": size, "counts": compressed}, height, width), mask)
    as_text = json.loads(json.dumps(compressed.decode()))
    assert np.array_equal(decode({"size": size, "counts": as_text}, height, width), mask)


def test_decode_segmentation__long_run() -> None:
    mask = np.zeros((2000, 3000), dtype=bool)
    mask[5, 1700] = True
    counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    assert np.array_equal(decode({"size": [2000, 3000], "counts": counts}, 2000, 3000), mask)


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "list of polygons or a run-length dict, found a NoneType"),
        ("3:7", "found a str"),
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "flat list"),
        ([[1, 2, 3, 4, 5, 6, 7]], "flat list"),
        ([["a", "b"] * 3], "flat list"),
        ([[1, 2, [3], 4, 5, 6]], "flat list"),
        ([[1, 2, float("nan"), 4, 5, 6]], "found \\(nan, 4\\)"),
        ([[1, 2, 1e9, 4, 5, 6]], "found \\(1e\\+09, 4\\)"),
        ([[1, 2, 3, -5, 5, 6]], "found \\(3, -5\\)"),
        ({"counts": [20]}, "image's size \\[4, 5\\].*found None"),
        ({"size": [5, 4], "counts": [20]}, "image's size \\[4, 5\\].*found \\[5, 4\\]"),
        ({"size": [4, 5]}, "`counts`"),
        ({"size": [4, 5], "counts": [3, "a"]}, "`counts`"),
        ({"size": [4, 5], "counts": [3, 10]}, "= 20 pixels, found 2 runs with the sum 13"),
        ({"size": [4, 5], "counts": []}, "found 0 runs"),
        ({"size": [4, 5], "counts": [30, -10]}, "found 2 runs with the sum 20"),
        # Each of these strings makes pycocotools return uninitialised memory or crash.
        ({"size": [4, 5], "counts": ""}, "found 0 runs"),
        ({"size": [4, 5], "counts": "3:"}, "sum 13"),
        ({"size": [4, 5], "counts": "3:7:7:7"}, "runs with"),
        ({"size": [4, 5], "counts": "3:7o"}, "cut off"),
        ({"size": [4, 5], "counts": "3:7é"}, "other characters"),
        ({"size": [4, 5], "counts": "oooooooooooooooooooo"}, "other characters"),
    ],
)
def test_parse_segmentation__refuses(segmentation: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        parse_segmentation(segmentation, 4, 5)
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=12))
def test_parse_segmentation__any_string_is_refused_or_right(counts: bytes) -> None:
    try:
        mask = decode({"size": [4, 5], "counts": counts}, 4, 5)
    except InputError:
        return
    again = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert np.array_equal(coco_mask.decode(again).astype(bool), mask)


def test_nearest_indices__worked_numbers() -> None:
    assert nearest_indices(4, 2).tolist() == [1, 3]
    assert nearest_indices(3, 3).tolist() == [0, 1, 2]
    assert nearest_indices(2, 5).tolist() == [0, 0, 1, 1, 1]
    assert nearest_indices(1, 3).tolist() == [0, 0, 0]
    assert nearest_indices(5, 1).tolist() == [2]
    # The centre of the fifth pixel is 2/3 + 4 * 4/3 = 6; summed up it is a little less.
    assert nearest_indices(640, 480)[4] == 5


@given(st.integers(1, 2000), st.integers(1, 600))
def test_nearest_indices__in_range_and_ordered(in_size: int, out_size: int) -> None:
    indices = nearest_indices(in_size, out_size)
    assert indices.shape == (out_size,)
    assert indices[0] >= 0
    assert indices[-1] < in_size
    assert (np.diff(indices) >= 0).all()
    # The same from the other end, but for the pixel centres that lie on a border.
    mirrored = in_size - 1 - indices[::-1]
    assert (np.abs(mirrored - indices) <= 1).all()


@pytest.mark.parametrize("sizes", [(0, 4), (4, 0)])
def test_nearest_indices__no_pixels(sizes: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="at least one pixel"):
        nearest_indices(*sizes)


def test_nearest_indices__is_shared_and_read_only() -> None:
    assert nearest_indices(37, 16) is nearest_indices(37, 16)
    with pytest.raises(ValueError, match="read-only"):
        nearest_indices(37, 16)[0] = 1


def as_lavt(mask: np.ndarray, size: int) -> np.ndarray:
    """LAVT's target: the mask as an image of mode P, resized by torchvision."""
    image = Image.fromarray(mask.astype(np.uint8))
    image.putpalette([0, 0, 0, 255, 255, 255])
    assert image.mode == "P"
    return np.asarray(resize(image, [size, size], interpolation=InterpolationMode.NEAREST))


# Sides of COCO's images, 640 by far the most frequent, then everything that might go wrong.
SIDES = [640, 480, 427, 425, 426, 428, 333, 500, 375, 612, 360, 1, 2, 3, 96, 128, 479, 481, 1024, 1920, 5000]


@pytest.mark.parametrize("size", [480, 96, 320, 1, 7])
def test_resize_mask__is_pils_to_the_bit(size: int) -> None:
    rng = np.random.default_rng(size)
    for height, width in zip(SIDES, SIDES[1:] + SIDES[:1], strict=True):
        mask = rng.random((height, width)) < 0.5
        small = resize_mask(mask, size)
        assert (small.shape, small.dtype) == ((size, size), np.bool_)
        assert np.array_equal(small, as_lavt(mask, size)), (height, width)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 3000), st.integers(1, 700))
def test_nearest_indices__are_what_pil_makes_of_a_ramp(in_size: int, out_size: int) -> None:
    ramp = Image.fromarray(np.arange(in_size, dtype=np.int32)[None])
    flat = ramp.resize((out_size, 1), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(flat)[0], nearest_indices(in_size, out_size))
    upright = ramp.transpose(Image.Transpose.TRANSPOSE).resize((1, out_size), Image.Resampling.NEAREST)
    assert np.array_equal(np.asarray(upright)[:, 0], nearest_indices(in_size, out_size))


def test_nearest_indices__are_pils_for_every_side() -> None:
    for in_size in range(1, 5001):
        ramp = Image.fromarray(np.arange(in_size, dtype=np.int32)[None])
        for out_size in (96, 320, 384, 480, 512):
            found = np.asarray(ramp.resize((out_size, 1), Image.Resampling.NEAREST))[0]
            assert np.array_equal(found, nearest_indices(in_size, out_size)), (in_size, out_size)


@pytest.mark.parametrize("seed", range(6))
def test_encode_mask__is_read_back(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((5, 7)) < (0.0, 0.1, 0.5, 0.9, 1.0, 0.5)[seed]
    runs = encode_mask(mask)
    assert runs.dtype == np.int32
    assert runs.tolist() == runs_of(mask)
    np.testing.assert_array_equal(decode_segmentation(runs, 5, 7), mask)
    assert is_empty(runs, 5, 7) == (not mask.any())


@pytest.mark.parametrize(
    ("polygons", "empty"),
    [([square(1, 2, 3)], False), ([square(-6, 0, 2)], True), ([square(-6, 0, 2), square(1, 1, 2)], False)],
)
def test_is_empty__polygons(polygons: list[list[float]], empty: bool) -> None:
    parsed = parse_segmentation(polygons, 8, 10)
    assert parsed is not None
    assert is_empty(parsed, 8, 10) == empty == (not decode_segmentation(parsed, 8, 10).any())


def test_unite_segmentations__any_of_them() -> None:
    square, triangle = [1.0, 1, 6, 1, 6, 6, 1, 6], [4.0, 4, 14, 5, 9, 11]
    polygons = [parse_segmentation([polygon], 12, 16) for polygon in (square, triangle)]
    runs = parse_segmentation({"size": [12, 16], "counts": [3, 20, 169]}, 12, 16)
    assert polygons[0] is not None
    assert polygons[1] is not None
    assert runs is not None
    for parts in ([polygons[0]], polygons, [*polygons, runs], [runs]):
        known = [part for part in parts if part is not None]
        expected = np.any([decode_segmentation(part, 12, 16) for part in known], axis=0)
        assert np.array_equal(decode_segmentation(unite_segmentations(known, 12, 16), 12, 16), expected)
    assert not decode_segmentation(unite_segmentations([], 12, 16), 12, 16).any()
