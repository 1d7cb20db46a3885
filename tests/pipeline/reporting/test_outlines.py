import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from semires.pipeline.reporting.outlines import outline


def filled(path: str, height: int, width: int) -> NDArray[np.bool_]:
    """The even-odd fill: a pixel is inside where an odd number of upright edges lies to its left."""
    crossed = np.zeros((height, width + 1), int)
    x = y = start_x = start_y = 0

    def go_down(to: int) -> None:
        crossed[min(y, to) : max(y, to), x] += 1

    for command, first, second in re.findall(r"([MHVZ])(\d*) ?(\d*)", path):
        if command == "M":
            x, y = start_x, start_y = int(first), int(second)
        elif command == "H":
            x = int(first)
        elif command == "V":
            go_down(int(first))
            y = int(first)
        else:
            assert x == start_x or y == start_y  # the last edge is straight too
            go_down(start_y)
            x, y = start_x, start_y
    return crossed.cumsum(axis=1)[:, :-1] % 2 == 1


@pytest.mark.parametrize(
    ("rows", "path"),
    [
        (["."], ""),
        (["#"], "M0 0H1V1H0Z"),
        (["##.", "#.."], "M0 0H2V1H1V2H0Z"),
        (["###", "#.#", "###"], "M0 0H3V3H0ZM1 1H2V2H1Z"),
    ],
)
def test_outline__by_hand(rows: list[str], path: str) -> None:
    assert outline(np.array([[pixel == "#" for pixel in row] for row in rows])) == path


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1), st.sampled_from([0.2, 0.5, 0.8, 1.0]))
def test_outline__its_fill_is_the_mask(height: int, width: int, seed: int, share: float) -> None:
    mask = np.random.default_rng(seed).random((height, width)) < share
    assert np.array_equal(filled(outline(mask), height, width), mask)
