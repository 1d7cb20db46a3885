import numpy as np
import pytest

from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS, COLORS, SIZES, Category


def test_categories__enough_of_both_kinds() -> None:
    assert len(CATEGORIES) >= 6
    assert sum(category.is_composite for category in CATEGORIES) >= 3
    assert sum(not category.is_composite for category in CATEGORIES) >= 3


def test_category_ids__number_the_categories_from_1() -> None:
    assert [CATEGORY_IDS[category.name] for category in CATEGORIES] == list(range(1, len(CATEGORIES) + 1))


@pytest.mark.parametrize("category", CATEGORIES, ids=lambda category: category.name)
def test_categories__parts(category: Category) -> None:
    assert 0 <= category.main < len(category.parts)
    assert len({part.name for part in category.parts}) == len(category.parts)
    for part in category.parts:
        assert part.outline.dtype == np.float64
        assert part.outline.ndim == 2
        assert part.outline.shape[1] == 2
        # An object is placed by its radius: it may not reach far beyond the unit box.
        assert np.abs(part.outline).max() <= 1.2
        x, y = part.outline.T
        area = abs(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1))) / 2
        # A part that is a sliver has no interior at the size of a small object.
        assert area > 0.4


def test_colors__are_told_apart() -> None:
    colors = np.array(list(COLORS.values()), dtype=float)
    distances = np.abs(colors[:, None] - colors[None]).max(axis=-1)[~np.eye(len(colors), dtype=bool)]
    # A scene moves each channel by up to 18 and lightens by 14%: words must not meet half-way.
    assert distances.min() > 60


def test_sizes__do_not_overlap() -> None:
    assert SIZES["small"][0] < SIZES["small"][1] < SIZES["big"][0] < SIZES["big"][1]
    assert SIZES["big"][0] > 1.25 * SIZES["small"][1]
