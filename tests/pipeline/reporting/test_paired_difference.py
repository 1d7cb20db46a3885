import numpy as np
import pytest
from numpy.typing import NDArray

from semires.pipeline.reporting.paired_difference import paired_difference
from semires.pipeline.scoring.counts import PixelCounts
from semires.stages.data.errors import InputError


def counts_of(intersections: list[int], unions: list[int], image_ids: list[int] | None = None) -> PixelCounts:
    ids = list(range(len(unions))) if image_ids is None else image_ids
    return PixelCounts(image_ids=np.array(ids), intersections=np.array(intersections), unions=np.array(unions))


def drawn(rng: np.random.Generator, num_images: int, iou: float) -> PixelCounts:
    """Two expressions an image, all of about this IoU."""
    unions = rng.integers(50, 150, 2 * num_images)
    intersections = rng.binomial(unions, iou)
    return counts_of(intersections.tolist(), unions.tolist(), np.arange(num_images).repeat(2).tolist())


def test_paired_difference__scores_by_hand() -> None:
    # 30 of 100 and 20 of 100 pixels, then 50 and 40: differences of 10 points in either seed.
    ours = [counts_of([10, 20], [40, 60]), counts_of([20, 30], [50, 50])]
    theirs = [counts_of([10, 10], [50, 50]), counts_of([20, 20], [50, 50])]
    found = paired_difference(ours, theirs)
    assert found.ours == pytest.approx((30.0, 50.0))
    assert found.theirs == pytest.approx((20.0, 40.0))
    assert found.mean == pytest.approx(10.0)
    assert found.low <= 10.0 <= found.high


def test_paired_difference__expressions_of_an_image_are_drawn_together() -> None:
    # One image has them all: every resample is the whole, whatever its expressions are.
    ours = counts_of([10, 0, 25], [40, 60, 50], [7, 7, 7])
    theirs = counts_of([10, 10, 10], [50, 50, 50], [7, 7, 7])
    found = paired_difference([ours], [theirs])
    assert found.low == found.high == pytest.approx(found.mean)


def test_paired_difference__runs_alike_differ_by_nothing() -> None:
    runs = [drawn(np.random.default_rng(seed), 30, 0.5) for seed in range(3)]
    found = paired_difference(runs, runs)
    assert (found.mean, found.low, found.high) == (0.0, 0.0, 0.0)


def plain_resamples(ours: list[PixelCounts], theirs: list[PixelCounts], num: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(1)
    image_ids = np.unique(ours[0].image_ids)
    differences = []
    for _ in range(num):
        images = rng.choice(image_ids, len(image_ids))
        rows = np.concatenate([np.flatnonzero(ours[0].image_ids == image_id) for image_id in images])
        of_seeds = []
        for seed in rng.integers(len(ours), size=len(ours)):
            one, other = (100 * r.intersections[rows].sum() / r.unions[rows].sum() for r in (ours[seed], theirs[seed]))
            of_seeds.append(one - other)
        differences.append(np.mean(of_seeds))
    return np.array(differences)


def test_paired_difference__interval_as_drawn_one_by_one() -> None:
    rng = np.random.default_rng(0)
    ours = [drawn(rng, 25, iou) for iou in (0.60, 0.66, 0.58)]
    theirs = [drawn(rng, 25, iou) for iou in (0.50, 0.53, 0.52)]
    found = paired_difference(ours, theirs, num_resamples=4000)
    low, high = np.percentile(plain_resamples(ours, theirs, 2000), [2.5, 97.5])
    assert found.low == pytest.approx(low, abs=0.4)
    assert found.high == pytest.approx(high, abs=0.4)
    assert found == paired_difference(ours, theirs, num_resamples=4000)  # the same seed, the same interval


def test_paired_difference__what_cannot_be_paired() -> None:
    one, other = counts_of([1], [2]), counts_of([1, 1], [2, 2])
    with pytest.raises(InputError, match="found 2 and 1"):
        paired_difference([one, one], [one])
    with pytest.raises(InputError, match="found 0 and 0"):
        paired_difference([], [])
    with pytest.raises(InputError, match="same expressions"):
        paired_difference([one], [other])
