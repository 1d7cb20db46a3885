"""Candidates at training size lie on the pixels of the masks at training size: each side has the rule in code of its
own, as `cache` and `stages` import nothing of each other's insides.
"""

import numpy as np
import pytest

from semires.cache.bits import nearest_indices, pack_rows, resize_nearest_packed, unpack_flat
from semires.stages.data import masks


@pytest.mark.parametrize(
    ("height", "width", "size"),
    # Torch's float32 would take another pixel for 448 -> 96; odd sizes end within a byte.
    [(448, 448, 96), (480, 640, 480), (427, 640, 480), (37, 61, 96), (61, 37, 31), (1, 5, 7), (9, 1, 3), (1, 1, 1)],
)
def test_view__samples_as_training_does(height: int, width: int, size: int) -> None:
    mask = np.random.default_rng(height * width).random((height, width)) < 0.5
    view = resize_nearest_packed(pack_rows(mask[None]), width=width, size=size)
    np.testing.assert_array_equal(unpack_flat(view, height=size, width=size)[0], masks.resize_mask(mask, size))


@pytest.mark.parametrize("size", [1, 7, 96, 333, 480, 512])
def test_nearest_indices__both_copies_agree(size: int) -> None:
    for size_in in range(1, 1025):
        np.testing.assert_array_equal(nearest_indices(size_in, size), masks.nearest_indices(size_in, size))
