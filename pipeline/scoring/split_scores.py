"""Scores of a split and of its subsets, with intervals, as plain values for JSON.

Axes: E expressions, K ratios.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semires.pipeline.scoring.bootstrap import ratio_intervals
from semires.pipeline.scoring.counts import PixelCounts, SplitCounts
from semires.stages.data.refer import Ref
from semires.stages.train.generalized_metrics import generalized_scores
from semires.stages.train.metrics import PRECISION_THRESHOLDS, scores_from_counts

Values = dict[str, Any]


def split_scores(pixels: PixelCounts, subsets: Mapping[str, NDArray[np.bool_]]) -> Values:
    """oiou, miou, precision and num_samples as `SegmentationScores` has them, in per cent; `intervals`, which hold 95%
    of a bootstrap over images: [low, high] of the same keys, None where all is of one image; `subsets`: name -> the
    same values of its expressions."""
    rows = {"": np.ones(len(pixels.image_ids), dtype=bool), **subsets}
    ious = pixels.ious
    one = np.ones(len(ious))
    tops = [pixels.intersections, ious, *(ious >= at for at in PRECISION_THRESHOLDS)]
    bottoms = [pixels.unions, one, *(one for _ in PRECISION_THRESHOLDS)]
    intervals = 100 * ratio_intervals(
        pixels.image_ids,
        np.stack([top * mask for mask in rows.values() for top in tops]),
        np.stack([bottom * mask for mask in rows.values() for bottom in bottoms]),
    ).reshape(len(rows), len(tops), 2)
    found = {
        name: _values(pixels, mask, of_row.tolist())
        for (name, mask), of_row in zip(rows.items(), intervals, strict=True)
    }
    return found.pop("") | {"subsets": found}


def generalized_values(counts: SplitCounts, refs: Sequence[Ref]) -> Values | None:
    """The values of `GeneralizedScores` at the training size; None where each of the split's `refs` means one object:
    there the scores above say it all."""
    if all(len(ref.ann_ids) == 1 for ref in refs):
        return None
    no_target = np.isin(counts.ref_ids, [ref.ref_id for ref in refs if not ref.ann_ids])
    arrays = (counts.intersections, counts.unions, counts.areas, no_target)
    return asdict(generalized_scores(*map(torch.from_numpy, arrays)))


def _values(pixels: PixelCounts, mask: NDArray[np.bool_], intervals: list[list[float]]) -> Values:
    scores = scores_from_counts(torch.from_numpy(pixels.intersections[mask]), torch.from_numpy(pixels.unions[mask]))
    # JSON has no number keys: "0.5" in the file as in the object, so that both read alike.
    at = [f"{threshold:g}" for threshold in PRECISION_THRESHOLDS]
    oiou, miou, *precision = (None if np.isnan(low) else [low, high] for low, high in intervals)
    return {
        "oiou": scores.oiou,
        "miou": scores.miou,
        "precision": dict(zip(at, scores.precision.values(), strict=True)),
        "num_samples": scores.num_samples,
        "intervals": {"oiou": oiou, "miou": miou, "precision": dict(zip(at, precision, strict=True))},
    }
