import numpy as np
import pytest

from semires.pipeline.scoring import bootstrap
from semires.pipeline.scoring.bootstrap import by_image, image_weights, ratio_intervals


def test_by_image__sums_in_the_order_of_the_ids() -> None:
    found = by_image(np.array([7, 3, 7]), np.array([[1, 2, 3], [0, 0, 1]]))
    assert found.tolist() == [[2, 4], [0, 1]]


def test_image_weights__every_resample_has_as_many_images(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = np.concatenate(list(image_weights(11, 1200, np.random.default_rng(0))))
    assert whole.shape == (1200, 11)
    assert (whole.sum(axis=1) == 11).all()
    monkeypatch.setattr(bootstrap, "_MOST_WEIGHTS", 11 * 7)
    parts = list(image_weights(11, 1200, np.random.default_rng(0)))
    assert {len(part) for part in parts} == {7, 1200 % 7}
    assert np.array_equal(np.concatenate(parts), whole)  # the same, however many lie in memory


def test_ratio_intervals__as_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    image_ids = np.repeat(np.arange(20), 3)
    bottom = rng.integers(50, 150, 60)
    top = rng.binomial(bottom, np.repeat(rng.uniform(0.3, 0.7, 20), 3))
    is_some = image_ids % 4 == 1  # a ratio of five images only
    (all_of, some_of) = ratio_intervals(image_ids, np.stack([top, top * is_some]), np.stack([bottom, bottom * is_some]))
    plain: list[list[float]] = [[], []]
    for _ in range(3000):
        rows = np.concatenate([np.flatnonzero(image_ids == image) for image in rng.integers(20, size=20)])
        plain[0].append(top[rows].sum() / bottom[rows].sum())
        rows = rows[is_some[rows]]
        if len(rows):
            plain[1].append(top[rows].sum() / bottom[rows].sum())
    for found, drawn in ((all_of, plain[0]), (some_of, plain[1])):
        assert found == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.01)
    assert some_of[1] - some_of[0] > all_of[1] - all_of[0]


def test_ratio_intervals__one_image_says_nothing_of_others() -> None:
    image_ids, ones = np.array([1, 1, 2]), np.ones((1, 3))
    found = ratio_intervals(image_ids, ones * [1, 1, 0], ones * [2, 2, 0])
    assert np.isnan(found).all()
    assert not np.isnan(ratio_intervals(image_ids, ones, 2 * ones)).any()


def test_ratio_intervals__no_spread_no_width() -> None:
    image_ids = np.arange(9)
    found = ratio_intervals(image_ids, np.full((1, 9), 3), np.full((1, 9), 4))
    assert found.tolist() == [[0.75, 0.75]]
