"""The plain reading of eqs. 6-8 and Algorithm 1: dense masks, one loop over samples and one over candidates.

It exists to be compared with ``matching.match``; ratios are exact fractions, so it has no rounding to hide behind.
"""

from fractions import Fraction

import torch
from torch import Tensor

from semires.stages.train.matching.config import MatchConfig, MatchResult


def match_reference(candidates: Tensor, offsets: Tensor, labels: Tensor, config: MatchConfig) -> MatchResult:
    """Refine the labels, bool [B, S, S], by dense candidates, bool [M, S, S]; everything else as ``matching.match``.

    A threshold means the decimal number its float prints as: 0.7 is seven tenths.
    """
    refined = labels.clone()
    matched = torch.zeros(len(labels), dtype=torch.bool)
    chosen = torch.full((len(labels),), -1 if config.strategy == "iom" else 0)
    for b, label in enumerate(labels):
        image_candidates = candidates[int(offsets[b]) : int(offsets[b + 1])]
        if config.strategy == "iom":
            index = _best_candidate(image_candidates, label, Fraction(str(config.iou_rate)))
            if index is not None:
                refined[b] = image_candidates[index]
                matched[b] = True
                chosen[b] = index
        else:
            qualified = _qualified_candidates(image_candidates, label, config)
            if qualified:
                refined[b] = False
                for index in qualified:
                    refined[b] |= image_candidates[index]
                matched[b] = True
                chosen[b] = len(qualified)
    return MatchResult(refined=refined, matched=matched, chosen=chosen)


def _best_candidate(candidates: Tensor, label: Tensor, iou_rate: Fraction) -> int | None:
    """IOM: the first candidate of the highest IoU (eq. 6), None unless that IoU is above the rate."""
    best_index, best_iou = None, iou_rate
    for index, candidate in enumerate(candidates):
        iou = _ratio(int((label & candidate).sum()), int((label | candidate).sum()))
        if iou > best_iou:
            best_index, best_iou = index, iou
    return best_index


def _qualified_candidates(candidates: Tensor, label: Tensor, config: MatchConfig) -> list[int]:
    """CPI: the candidates that s1 (eq. 7), s2 (eq. 8) or either qualifies."""
    qualified = []
    for index, candidate in enumerate(candidates):
        inter = int((label & candidate).sum())
        is_under = _ratio(inter, int(label.sum())) > Fraction(str(config.inter1))
        is_over = _ratio(inter, int(candidate.sum())) > Fraction(str(config.inter2))
        if {"cpi-u": is_under, "cpi-o": is_over, "cpi": is_under or is_over}[config.strategy]:
            qualified.append(index)
    return qualified


def _ratio(count: int, total: int) -> Fraction:
    """count / total; 0 where the total is 0, which eq. 7's epsilon stands for."""
    return Fraction(count, total) if total else Fraction(0)
