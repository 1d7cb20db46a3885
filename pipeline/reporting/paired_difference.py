"""How much better one method is than another: paired runs, with an interval by bootstrap over seeds and images.

Seeds are few and images are shared by all runs, so both are drawn anew (scoring/bootstrap.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semires.pipeline.scoring.bootstrap import NUM_RESAMPLES, PERCENTILES, resampled_oiou
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
    oiou = resampled_oiou([ours, theirs], num_resamples=num_resamples, seed=seed)
    low, high = np.percentile(oiou[0] - oiou[1], PERCENTILES)
    return PairedDifference(
        ours=tuple(counts.oiou for counts in ours),
        theirs=tuple(counts.oiou for counts in theirs),
        low=float(low),
        high=float(high),
    )
