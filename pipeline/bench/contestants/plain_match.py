"""Refining a label by dense masks, the contestants of `semires bench match`: the public code's loop, and a matrix
product."""

import torch
from torch import Tensor

from semires.stages.train.matching import MatchConfig


def match_by_loop(candidates: Tensor, label: Tensor, config: MatchConfig) -> Tensor:
    """Refine one label, bool [S, S], by dense candidates, bool [N, S, S], in the public code's steps (iom, cpi-u).

    Each candidate is compared on its own and its counts are read back before the next.
    """
    label_area = label.sum().item()
    best, best_iou, union = None, config.iou_rate, None
    for candidate in candidates:
        inter = torch.logical_and(candidate, label).sum().item()
        if config.strategy == "iom":
            iou = inter / max(torch.logical_or(candidate, label).sum().item(), 1)
            if iou > best_iou:
                best, best_iou = candidate, iou
        elif inter / max(label_area, 1) > config.inter1:
            union = candidate if union is None else torch.logical_or(union, candidate)
    found = best if config.strategy == "iom" else union
    return label if found is None else found


def match_by_matmul(candidates: Tensor, label: Tensor, config: MatchConfig) -> Tensor:
    """Refine one label, bool [S, S], by dense candidates, bool [N, S, S], through one float matrix product.

    Counts are float32 sums, exact to 2^24 pixels.
    """
    flat = candidates.flatten(1).float()
    inters = flat @ label.flatten().float()
    if config.strategy == "iom":
        ious = inters / (flat.sum(dim=1) + label.sum() - inters).clamp(min=1)
        return candidates[ious.argmax()] if ious.max() > config.iou_rate else label
    qualified = inters / label.sum().clamp(min=1) > config.inter1
    return candidates[qualified].any(dim=0) if qualified.any() else label
