import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from semires.cache.bits import (
    nearest_indices,
    pack_flat,
    pack_rows,
    packed_areas,
    packed_boxes,
    packed_length,
    resize_nearest_packed,
    unpack_flat,
    unpack_rows,
)

# Heights and widths of one pixel, widths on both sides of whole bytes, empty and full masks.
MASKS = st.tuples(
    st.integers(0, 6), st.integers(1, 19), st.one_of(st.integers(1, 19), st.sampled_from([1, 7, 8, 9, 16, 63, 65]))
).flatmap(
    lambda shape: st.one_of(
        arrays(np.bool_, shape, elements=st.booleans()),
        st.just(np.zeros(shape, np.bool_)),
        st.just(np.ones(shape, np.bool_)),
    )
)


@pytest.mark.parametrize(("num_bits", "num_bytes"), [(0, 0), (1, 1), (8, 1), (9, 2), (640, 80)])
def test_packed_length__rounds_up(num_bits: int, num_bytes: int) -> None:
    assert packed_length(num_bits) == num_bytes


@given(masks=MASKS)
@settings(max_examples=50, deadline=None)
def test_pack_rows__round_trip(masks: np.ndarray) -> None:
    bits = pack_rows(masks)
    assert bits.shape == (masks.shape[0], masks.shape[1], packed_length(masks.shape[2]))
    assert np.bitwise_count(bits).sum() == masks.sum()
    unpacked = unpack_rows(bits, width=masks.shape[2])
    assert unpacked.dtype == np.bool_
    np.testing.assert_array_equal(unpacked, masks)


@given(masks=MASKS)
@settings(max_examples=50, deadline=None)
def test_pack_flat__round_trip(masks: np.ndarray) -> None:
    bits = pack_flat(masks)
    assert bits.shape == (masks.shape[0], packed_length(masks.shape[1] * masks.shape[2]))
    np.testing.assert_array_equal(unpack_flat(bits, height=masks.shape[1], width=masks.shape[2]), masks)


def test_pack_rows__leftmost_pixel_is_highest_bit() -> None:
    masks = np.zeros((1, 1, 9), np.bool_)
    masks[0, 0, [0, 8]] = True
    assert pack_rows(masks).tolist() == [[[0b1000_0000, 0b1000_0000]]]


@pytest.mark.parametrize(
    ("size_in", "size_out", "expected"),
    [(1, 3, [0, 0, 0]), (3, 1, [1]), (4, 2, [1, 3]), (2, 4, [0, 0, 1, 1]), (3, 5, [0, 0, 1, 2, 2]), (5, 5, range(5))],
)
def test_nearest_indices__by_hand(size_in: int, size_out: int, expected: list[int]) -> None:
    indices = nearest_indices(size_in, size_out)
    assert indices.dtype == np.int64
    assert indices.tolist() == list(expected)


@pytest.mark.parametrize("size_out", [96, 128, 320, 384, 480])
def test_nearest_indices__equals_pil(size_out: int) -> None:
    for size_in in (1, 2, 7, 96, 128, 333, 427, 448, 480, 500, 612, 640, 1024, 5000):
        ramp = Image.fromarray(np.arange(size_in, dtype=np.int32)[None])
        nearest = np.asarray(ramp.resize((size_out, 1), Image.Resampling.NEAREST))[0]
        np.testing.assert_array_equal(nearest_indices(size_in, size_out), nearest)


def test_nearest_indices__is_shared_and_read_only() -> None:
    assert nearest_indices(37, 16) is nearest_indices(37, 16)
    with pytest.raises(ValueError, match="read-only"):
        nearest_indices(37, 16)[0] = 1


@given(size_in=st.integers(1, 5000), size_out=st.integers(1, 5000))
@settings(max_examples=50, deadline=None)
def test_nearest_indices__stays_inside_and_ascends(size_in: int, size_out: int) -> None:
    indices = nearest_indices(size_in, size_out)
    assert len(indices) == size_out
    assert indices[0] >= 0
    assert indices[-1] < size_in
    assert np.all(np.diff(indices) >= 0)


def test_nearest_indices__zero_size() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 -> 4"):
        nearest_indices(0, 4)


@given(masks=MASKS, size=st.integers(1, 21))
@settings(max_examples=80, deadline=None)
def test_resize_nearest_packed__equals_indexing_unpacked(masks: np.ndarray, size: int) -> None:
    _, height, width = masks.shape
    rows, columns = nearest_indices(height, size), nearest_indices(width, size)
    expected = pack_flat(masks[:, rows[:, None], columns[None, :]])
    resized = resize_nearest_packed(pack_rows(masks), width=width, size=size)
    assert resized.dtype == np.uint8
    np.testing.assert_array_equal(resized, expected)


@given(masks=MASKS)
@settings(max_examples=50, deadline=None)
def test_packed_areas_and_boxes__equal_those_of_pixels(masks: np.ndarray) -> None:
    bits = pack_rows(masks)
    areas, boxes = packed_areas(bits), packed_boxes(bits, width=masks.shape[2])
    assert (areas.dtype, boxes.dtype, boxes.shape) == (np.int32, np.int32, (len(masks), 4))
    for mask, area, box in zip(masks, areas, boxes.tolist(), strict=True):
        rows, columns = np.nonzero(mask)
        assert area == len(rows)
        assert box == ([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else [0, 0, 0, 0])
