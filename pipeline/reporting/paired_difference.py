"""How much better one method is than another: paired runs, with an interval by bootstrap over seeds and images.

Seeds are few and images are shared by all runs, so both are drawn anew: a resample takes as many seeds and as many
images, with replacement, and measures both methods on the same (scoring/bootstrap.py).

Axes: S seeds, E expressions, I images, N resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semires.pipeline.scoring.bootstrap import NUM_RESAMPLES, PERCENTILES, by_image, image_weights
from semires.pipeline.scoring.counts import PixelCounts
from semires.stages.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class PairedDifference:
    """oIoU in per cent: each seed's `ours` and `theirs`, and the interval `low` to `high` that holds 95% of the
    resamples' mean differences."""

    ours: tuple[float, ...]
    theirs: tuple[float, ...]
    low: float
    high: float

    @property
    def mean(self) -> float:
        """The mean over seeds of ours less theirs."""
        return float(np.mean(self.ours) - np.mean(self.theirs))


def paired_difference(
    ours: Sequence[PixelCounts],
    theirs: Sequence[PixelCounts],
    *,
    num_resamples: int = NUM_RESAMPLES,
    seed: int = 0,
) -> PairedDifference:
    """The difference in oIoU of runs in pairs, each pair of one seed. InputError where they are no pairs, or not of the
    same expressions."""
    if not ours or len(ours) != len(theirs):
        raise InputError(
            f"expected as many runs as runs to compare with, a pair a seed, found {len(ours)} and {len(theirs)}"
        )
    image_ids = ours[0].image_ids
    for counts in (*ours, *theirs):
        if not np.array_equal(counts.image_ids, image_ids):
            raise InputError("expected runs scored on the same expressions, found others: compare runs of one data set")
    pixels = np.stack([[_pixels(counts) for counts in runs] for runs in (ours, theirs)])  # [2, S, 2, I]
    rng = np.random.default_rng(seed)
    num_seeds, num_images = pixels.shape[1], pixels.shape[3]
    differences = []
    for weights_NI in image_weights(num_images, num_resamples, rng):
        of_seeds = rng.integers(num_seeds, size=(len(weights_NI), num_seeds))
        oiou = _oiou(pixels @ weights_NI.T)  # [2, S, N]
        by_seed_NS = (oiou[0] - oiou[1]).T
        differences.append(np.take_along_axis(by_seed_NS, of_seeds, axis=1).mean(axis=1))
    low, high = np.percentile(np.concatenate(differences), PERCENTILES)
    measured = _oiou(pixels.sum(axis=3, keepdims=True))[..., 0]
    return PairedDifference(
        ours=tuple(measured[0].tolist()), theirs=tuple(measured[1].tolist()), low=float(low), high=float(high)
    )


def _pixels(counts: PixelCounts) -> NDArray[np.float64]:
    """Intersections and unions of each image's expressions together, [2, I]."""
    return by_image(counts.image_ids, np.stack([counts.intersections, counts.unions]))


def _oiou(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Overall IoU in per cent of intersections and unions, [2, S, 2, N] -> [2, S, N]."""
    return 100.0 * pixels[:, :, 0] / np.maximum(pixels[:, :, 1], 1.0)
