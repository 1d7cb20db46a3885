"""Matching with dense boolean masks, one image at a time: the readable form, for any device that torch has.

MPS and whatever else is neither CPU nor CUDA runs on it. It takes 8 bytes where the others take one bit of a byte, and
the host waits once for each image; it is the middle reference of the tests, between the kernels and
``reference``.
"""

from itertools import pairwise

import torch
from torch import Tensor

from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.packed import unpack_bits


def match_dense(
    candidates: Tensor, offsets: Tensor, labels: Tensor, size: int, config: MatchConfig, return_scores: bool
) -> MatchResult:
    """Match with dense masks; arguments as `matching.match` has checked them, M and B at least 1.

    Pixels are counted on the device; the counts, a few numbers, are weighed on the CPU, since MPS has no float64.
    """
    device = candidates.device
    refined = labels.clone() if labels.dtype == torch.bool else unpack_bits(labels, size)
    matched = torch.zeros(len(labels), dtype=torch.bool)
    chosen = torch.full((len(labels),), config.no_choice)
    scores = torch.zeros(len(candidates), dtype=torch.float64)
    for b, (low, high) in enumerate(pairwise(offsets.tolist())):
        if low == high:
            continue
        label = refined[b].clone()
        masks = unpack_bits(candidates[low:high], size)
        inters = (masks & label).sum(dim=(1, 2)).cpu()
        areas = masks.sum(dim=(1, 2)).cpu()
        scores[low:high], qualified = _judge(inters, areas, label.sum().cpu(), config)
        if qualified.any():
            matched[b] = True
            if config.strategy == "iom":
                chosen[b] = scores[low:high].argmax()
                refined[b] = masks[int(chosen[b])]
            else:
                chosen[b] = qualified.sum()
                refined[b] = masks[qualified.to(device)].any(dim=0)
    if device.type == "mps":
        scores = scores.float()
    return MatchResult(
        refined=refined,
        matched=matched.to(device),
        chosen=chosen.to(device),
        scores=scores.to(device) if return_scores else None,
    )


def _judge(inters: Tensor, areas: Tensor, label_area: Tensor, config: MatchConfig) -> tuple[Tensor, Tensor]:
    """Score, float64 [N], and whether it qualifies, bool [N], from pixel counts, int64 [N] and []."""
    if config.strategy == "iom":
        ious = _ratio(inters, areas + label_area - inters)
        return ious, ious > config.iou_rate
    s1 = _ratio(inters, label_area)
    s2 = _ratio(inters, areas)
    is_under, is_over = s1 > config.inter1, s2 > config.inter2
    if config.strategy == "cpi-u":
        return s1, is_under
    if config.strategy == "cpi-o":
        return s2, is_over
    return torch.maximum(s1, s2), is_under | is_over


def _ratio(counts: Tensor, totals: Tensor) -> Tensor:
    """Counts / totals in float64; 0 where the total is 0, which eq. 7's epsilon stands for."""
    return counts.double() / totals.clamp(min=1)
