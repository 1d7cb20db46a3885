"""Intervals by bootstrap over images: expressions of one image are not independent, images are.

A resample takes as many images as there are, with replacement, each with all its expressions. (Efron and Tibshirani, An
Introduction to the Bootstrap, chapter 13: percentile intervals.)

Axes: E expressions, I images, N resamples, K ratios, R rows of S seeds each.
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from semires.pipeline.scoring.counts import PixelCounts

NUM_RESAMPLES = 5000
PERCENTILES = (2.5, 97.5)  # of an interval that holds 95%
_AT_ONCE = 500  # resamples whose weights lie in memory together, of many images fewer
_MOST_WEIGHTS = 1 << 23


def image_weights(num_images: int, num_resamples: int, rng: np.random.Generator) -> Iterator[NDArray[np.int64]]:
    """How often each image is in each resample, in parts int64 [n, I] of N rows in all."""
    at_once = max(1, min(_AT_ONCE, _MOST_WEIGHTS // num_images))
    for start in range(0, num_resamples, at_once):
        yield rng.multinomial(num_images, np.full(num_images, 1 / num_images), size=min(at_once, num_resamples - start))


def by_image(image_ids: NDArray[np.int64], values: NDArray[np.generic]) -> NDArray[np.float64]:
    """Sums of the expressions' values, [K, E], over each image, float64 [K, I], images in the order of their ids."""
    images, image_of = np.unique(image_ids, return_inverse=True)
    return np.stack([np.bincount(image_of, row, len(images)) for row in values])


def ratio_intervals(
    image_ids: NDArray[np.int64],
    numerators: NDArray[np.generic],
    denominators: NDArray[np.generic],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Intervals that hold 95% of the resamples of K ratios of sums over expressions, float64 [K, 2], low then high.

    image_ids: int64 [E]. numerators, denominators: [K, E], 0 for expressions that a ratio is not of: resamples without
    any that it is of do not count. NaN for a ratio of a single image, from which nothing else can be drawn.
    """
    tops, bottoms = by_image(image_ids, numerators), by_image(image_ids, denominators)
    ratios = []
    for weights_NI in image_weights(tops.shape[1], num_resamples, np.random.default_rng(seed)):
        top, bottom = tops @ weights_NI.T, bottoms @ weights_NI.T
        ratios.append(np.divide(top, bottom, out=np.full(top.shape, np.nan), where=bottom > 0))
    found = np.full((len(tops), 2), np.nan)
    drawn = np.concatenate(ratios, axis=1)
    for row in np.flatnonzero(np.count_nonzero(bottoms, axis=1) > 1):
        found[row] = np.percentile(drawn[row][~np.isnan(drawn[row])], PERCENTILES)
    return found


def resampled_oiou(
    rows: Sequence[Sequence[PixelCounts]], *, num_resamples: int = NUM_RESAMPLES, seed: int = 0
) -> NDArray[np.float64]:
    """Overall IoU in per cent, the mean over seeds, of each of R methods in N resamples, float64 [R, N].

    rows: of each method its runs, one a seed, the same seeds in each and all of the same expressions. Seeds are few and
    images are shared by all runs, so both are drawn anew: a resample takes as many seeds and as many images, with
    replacement, and measures all methods on the same.
    """
    pixels = np.stack([[_pixels(counts) for counts in runs] for runs in rows])  # [R, S, 2, I]
    rng = np.random.default_rng(seed)
    num_seeds, num_images = pixels.shape[1], pixels.shape[3]
    found = []
    for weights_NI in image_weights(num_images, num_resamples, rng):
        of_seeds = rng.integers(num_seeds, size=(len(weights_NI), num_seeds))
        drawn = pixels @ weights_NI.T  # [R, S, 2, N]
        oiou = 100.0 * drawn[:, :, 0] / np.maximum(drawn[:, :, 1], 1.0)
        found.append(np.take_along_axis(oiou.swapaxes(1, 2), of_seeds[None], axis=2).mean(axis=2))
    return np.concatenate(found, axis=1)


def _pixels(counts: PixelCounts) -> NDArray[np.float64]:
    """Intersections and unions of each image's expressions together, [2, I]."""
    return by_image(counts.image_ids, np.stack([counts.intersections, counts.unions]))
