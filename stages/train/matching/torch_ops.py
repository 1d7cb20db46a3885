"""Matching by torch's integer operators: for CUDA devices without Triton; no host synchronisation.

Every shape follows from M, B and S, which the host knows: no value is read back, no rows are selected by a mask. The
words are worked through in column chunks, so that the temporaries of AND, popcount and OR stay below the packed
candidates' own size. Runs on the CPU as well, where the tests hold it equal to the others.
"""

import torch
from torch import Tensor

from semires.stages.train.engine.transfer import moved
from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.packed import as_words, pack_bits, popcount_by_shifts, unpack_bits

# Popcount by shifts holds about five temporaries of a chunk at a time.
_CHUNKS = 8
# Chunks below this many bytes save no memory worth another round of kernel launches.
_MIN_CHUNK_BYTES = 1 << 20


def match_torch(
    candidates: Tensor, offsets: Tensor, labels: Tensor, size: int, config: MatchConfig, return_scores: bool
) -> MatchResult:
    """Match with torch's operators; arguments as `matching.match` has checked them, M and B at least 1."""
    candidates_MW = as_words(candidates)
    labels_BW = as_words(pack_bits(labels) if labels.dtype == torch.bool else labels)
    offsets = moved(offsets.contiguous(), candidates.device)
    num_candidates, num_words = candidates_MW.shape
    # Image of each candidate: the number of images that end at or before it.
    order_M = torch.arange(num_candidates, device=candidates.device)
    sample_M = torch.searchsorted(offsets[1:], order_M, right=True)

    width = max(-(-num_words // _CHUNKS), min(num_words, _MIN_CHUNK_BYTES // (8 * num_candidates)))
    chunks = [slice(first, first + width) for first in range(0, num_words, width)]
    inters, areas, label_areas = _count(candidates_MW, labels_BW, sample_M, chunks, config)
    scores, qualified = _judge(inters, areas, label_areas.index_select(0, sample_M), config)

    own_BM = sample_M == torch.arange(len(labels_BW), device=candidates.device)[:, None]
    qualified_BM = own_BM & qualified
    matched = qualified_BM.any(dim=1)
    refined_BW = labels_BW.clone()
    # Where an image has no candidate, or none qualified, row 0 stands in and is not used.
    if config.strategy == "iom":
        best_B = scores.expand_as(own_BM).masked_fill(~own_BM, -1.0).argmax(dim=1)  # the first of equals
        chosen = (best_B - offsets[:-1]).masked_fill(~matched, -1)
        for chunk in chunks:
            best = candidates_MW[:, chunk].index_select(0, best_B)
            refined_BW[:, chunk] = torch.where(matched[:, None], best, labels_BW[:, chunk])
    else:
        chosen = qualified_BM.sum(dim=1)
        first_B = offsets[:-1].clamp(max=num_candidates - 1)
        for chunk in chunks:
            union = _or_from_here(candidates_MW[:, chunk], qualified, sample_M).index_select(0, first_B)
            refined_BW[:, chunk] = torch.where(matched[:, None], union, labels_BW[:, chunk])
    return MatchResult(
        refined=unpack_bits(refined_BW.view(torch.uint8), size),
        matched=matched,
        chosen=chosen,
        scores=scores if return_scores else None,
    )


def _count(
    candidates_MW: Tensor, labels_BW: Tensor, sample_M: Tensor, chunks: list[slice], config: MatchConfig
) -> tuple[Tensor, Tensor, Tensor]:
    """Pixels of each intersection [M], of each candidate [M] (zeros for cpi-u, which needs none), of each label [B]."""
    inters = candidates_MW.new_zeros(len(candidates_MW))
    areas = torch.zeros_like(inters)
    label_areas = candidates_MW.new_zeros(len(labels_BW))
    for chunk in chunks:
        label_areas += popcount_by_shifts(labels_BW[:, chunk])
        inters += popcount_by_shifts(candidates_MW[:, chunk] & labels_BW[:, chunk].index_select(0, sample_M))
        if config.strategy != "cpi-u":
            areas += popcount_by_shifts(candidates_MW[:, chunk])
    return inters, areas, label_areas


def _judge(inters: Tensor, areas: Tensor, label_areas: Tensor, config: MatchConfig) -> tuple[Tensor, Tensor]:
    """Score, float64 [M], and whether it qualifies, bool [M]."""
    # Empty denominators go with empty intersections, so the clamps stand in for eq. 7's epsilon: score 0, no match.
    if config.strategy == "iom":
        ious = inters.double() / (areas + label_areas - inters).clamp(min=1)
        return ious, ious > config.iou_rate
    s1 = inters.double() / label_areas.clamp(min=1)
    s2 = inters.double() / areas.clamp(min=1)
    if config.strategy == "cpi-u":
        return s1, s1 > config.inter1
    if config.strategy == "cpi-o":
        return s2, s2 > config.inter2
    return torch.maximum(s1, s2), (s1 > config.inter1) | (s2 > config.inter2)


def _or_from_here(words_MW: Tensor, qualified: Tensor, sample_M: Tensor) -> Tensor:
    """OR of a row and all later qualified rows of its image, int64 [M, W]: the union stands in an image's first row.

    Doubling steps: after step k a row holds the OR of the 2k rows from it on. OR may take a row twice.
    """
    union_MW = words_MW.masked_fill(~qualified[:, None], 0)
    step = 1
    while step < len(union_MW):
        is_same = (sample_M[step:] == sample_M[:-step])[:, None]
        union_MW[:-step] |= union_MW[step:].masked_fill(~is_same, 0)
        step *= 2
    return union_MW
