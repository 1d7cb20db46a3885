"""Matching of one mask of any sides: the kernels count bits, and do not care where an image's rows end."""

import math
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.dispatch import match
from semires.stages.train.matching.packed import pack_bits


def match_oblong(candidates: Tensor, label: Tensor, config: MatchConfig, *, return_scores: bool = False) -> MatchResult:
    """`match` of one pseudo-label, bool [H, W], with the candidates of its image; its result's B is 1, `refined` bool
    [1, H, W].

    candidates: uint8 [M, ceil(H * W / 8)], each laid flat as `pack_bits` does, on the label's device. All pixels are
    laid into the smallest square that holds them, and what is left of it is empty. InputError as of `match`.
    """
    height, width = label.shape
    num_pixels = height * width
    size = math.isqrt(max(num_pixels - 1, 0)) + 1
    padding = (0, -(-size * size // 8) - -(-num_pixels // 8))
    found = match(
        F.pad(candidates, padding),
        torch.tensor([0, len(candidates)]),
        F.pad(pack_bits(label[None]), padding),
        config,
        size=size,
        return_scores=return_scores,
    )
    return replace(found, refined=found.refined.flatten(1)[:, :num_pixels].view(1, height, width))
