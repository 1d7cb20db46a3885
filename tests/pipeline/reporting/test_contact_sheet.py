import numpy as np
import pytest
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.reporting.contact_sheet import (
    COLUMNS,
    GREY,
    LINE,
    LINES,
    MARGIN,
    TILE,
    colored,
    contact_sheet,
    largest_first,
    mask_colors,
    resized_masks,
)
from semires.stages.data.errors import InputError

HEIGHT, WIDTH = 60, 120  # tiles of 120 x 240
STEP_X, STEP_Y = TILE + MARGIN, TILE // 2 + LINES * LINE + MARGIN


def candidates_of(count: int, scores: float = 0.5) -> Candidates:
    """Masks that grow: the last is the largest."""
    masks = np.zeros((count, HEIGHT, WIDTH), dtype=bool)
    for number in range(count):
        masks[number, :10, : 10 * (number + 1)] = True
    return Candidates.from_masks(7, masks, np.full(count, scores), np.full(count, scores), np.zeros((count, 2)))


def tile(sheet: Image.Image, number: int) -> np.ndarray:
    x, y = number % COLUMNS * STEP_X, number // COLUMNS * STEP_Y
    return np.asarray(sheet)[y : y + TILE // 2, x : x + TILE]


def test_contact_sheet__all_then_each_largest_first() -> None:
    image = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    sheet = contact_sheet(candidates_of(8), image)
    assert sheet.size == (COLUMNS * STEP_X - MARGIN, 2 * STEP_Y - MARGIN)
    colors = mask_colors(8)
    # In the tile of all, each mask keeps what no smaller one covers; masks are 20 pixels wider each.
    row = tile(sheet, 0)[5]
    for number in range(8):
        np.testing.assert_array_equal(row[20 * (8 - number) - 10], colors[number])
    assert row[200].max() < 100
    for number in range(8):
        found = tile(sheet, number + 1)
        width = 20 * (8 - number)
        np.testing.assert_array_equal(found[0, : width - 1], np.tile(colors[number], (width - 1, 1)))  # its rim
        assert not (found[0, width:] == colors[number]).all(axis=1).any()
        np.testing.assert_allclose(found[10, 10], 200 * 0.6 + colors[number] * 0.4, atol=1)
    # Below the last tile is text, beyond it nothing.
    assert (np.asarray(sheet)[STEP_Y + TILE // 2 :, 2 * STEP_X : 3 * STEP_X - MARGIN] < 128).any()
    assert (np.asarray(sheet)[STEP_Y:, 3 * STEP_X :] == 255).all()


def test_contact_sheet__without_an_image_on_grey() -> None:
    found = tile(contact_sheet(candidates_of(1)), 1)
    np.testing.assert_array_equal(found[100, 200], found[100, 150])
    assert np.ptp(found[100, 200]) == 0
    assert 80 < found[100, 200, 0] <= GREY


def test_contact_sheet__no_candidates() -> None:
    sheet = contact_sheet(candidates_of(0), np.full((HEIGHT, WIDTH, 3), 200, np.uint8), title="image 7")
    assert sheet.size == (TILE, LINE + MARGIN + STEP_Y - MARGIN)
    assert (np.asarray(sheet)[: LINE + MARGIN] < 128).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (2, 3)])
def test_contact_sheet__odd_sizes(size: tuple[int, int]) -> None:
    masks = np.ones((2, *size), dtype=bool)
    candidates = Candidates.from_masks(1, masks, np.ones(2), np.ones(2), np.zeros((2, 2)))
    sheet = contact_sheet(candidates, np.zeros((*size, 3), np.uint8), title="one")
    assert sheet.width == 3 * STEP_X - MARGIN


def test_contact_sheet__unknown_scores_are_a_dash() -> None:
    known, unknown = contact_sheet(candidates_of(1)), contact_sheet(candidates_of(1, scores=np.nan))
    assert known.size == unknown.size
    assert known.tobytes() != unknown.tobytes()


def test_contact_sheet__image_of_another_size() -> None:
    with pytest.raises(InputError, match=r"60 x 120 pixels \(height, width\), found one of 120 x 60"):
        contact_sheet(candidates_of(1), np.zeros((WIDTH, HEIGHT, 3), np.uint8))


def test_mask_colors__neighbours_differ() -> None:
    colors = mask_colors(50).astype(int)
    assert colors.shape == (50, 3)
    assert len({tuple(color) for color in colors.tolist()}) > 45
    assert np.abs(np.diff(colors, axis=0)).sum(axis=1).min() > 100
    assert mask_colors(0).shape == (0, 3)


def test_largest_first__ties_keep_their_order() -> None:
    areas = np.array([3, 9, 3, 2**31 - 1, 0], np.int32)
    assert largest_first(areas).tolist() == [3, 1, 0, 2, 4]


def test_colored__later_masks_on_top() -> None:
    masks = np.zeros((2, 4, 4), dtype=bool)
    masks[0, :3], masks[1, :1] = True, True
    picture = np.asarray(colored(np.full((4, 4, 3), 100, np.uint8), masks))
    first, second = mask_colors(2)
    assert (picture[0] == second).all()
    assert (picture[1:3] == first).all()
    assert (picture[3] == 35).all()


def test_resized_masks__nearest() -> None:
    masks = np.eye(2, dtype=bool)[None]
    np.testing.assert_array_equal(resized_masks(masks, (4, 6))[0], np.kron(np.eye(2), np.ones((2, 3))).astype(bool))
    assert resized_masks(masks[:0], (4, 6)).shape == (0, 4, 6)
