"""Matching on NVIDIA GPUs: three Triton kernels on packed bits, no host synchronisation.

1. `_pack_labels` (dense labels only): pixels -> bits.
2. `_judge_candidates`: one program a candidate reads its words once, counts, scores, and where a CPI strategy qualifies
   it, ORs it into its image's union with atomics. OR and the count of qualified candidates do not depend on the order,
   so the result is the same at every run.
3. `_write_refined`: one program a piece of a refined label unpacks the union, the best candidate (found among its
   image's scores) or the label itself.

Extra memory beside the result: M scores, B packed labels and B packed unions. Bytes moved are the candidates', once,
and those of the qualified ones again, from the L2 cache as a rule.

Thresholds are compile-time constants (a float argument of a Triton kernel would be rounded to float32): the first call
with a configuration compiles. `TRITON_INTERPRET=1`, set before this module is imported, runs the kernels on CPU
tensors.
"""

# mypy: disallow-untyped-defs=False, disallow-incomplete-defs=False
# (Triton types a kernel's parameters at its call and refuses other annotations.)

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton import knobs

from semires.stages.train.engine.transfer import moved
from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.packed import as_words

# The strategies' names inside the kernels, where strings cannot go.
_CODES = {"iom": 0, "cpi-u": 1, "cpi-o": 2, "cpi": 3}
_WORDS_PER_STEP = 1024
_PIXELS_PER_PROGRAM = 4096
_BYTES_PER_PROGRAM = 512
_SCORES_PER_STEP = 256


def match_triton(
    candidates: Tensor, offsets: Tensor, labels: Tensor, size: int, config: MatchConfig, return_scores: bool
) -> MatchResult:
    """Match with the kernels; arguments as `matching.match` has checked them, M and B at least 1."""
    device = candidates.device
    num_samples, num_candidates, num_pixels = len(labels), len(candidates), size * size
    # Fusing multiplications with additions is never right to rely on in a comparison; said, Triton does not warn.
    options = {"enable_fp_fusion": False}
    with _current(device):
        offsets = moved(offsets.contiguous(), device)
        candidates_MW = as_words(candidates).view(torch.int32)
        num_words = candidates_MW.shape[1]
        if labels.dtype == torch.bool:
            labels_BW = torch.empty(num_samples, num_words, dtype=torch.int32, device=device)
            grid = (num_samples, triton.cdiv(4 * num_words, _BYTES_PER_PROGRAM))
            _pack_labels[grid](
                labels.contiguous().view(torch.uint8),
                labels_BW.view(torch.uint8),
                num_pixels,
                4 * num_words,
                BYTES=_BYTES_PER_PROGRAM,
                **options,
            )
        else:
            labels_BW = as_words(labels).view(torch.int32)

        scores = torch.empty(num_candidates, dtype=torch.float64, device=device)
        # One zeroed buffer for what the atomics add to: each image's union, then its count of qualified candidates.
        unions_BW = torch.zeros(num_samples, num_words + 1, dtype=torch.int32, device=device)
        _judge_candidates[(num_candidates,)](
            candidates_MW,
            labels_BW,
            offsets,
            scores,
            unions_BW,
            num_samples,
            num_words,
            CODE=_CODES[config.strategy],
            INTER1=config.inter1,
            INTER2=config.inter2,
            SAMPLES=triton.next_power_of_2(num_samples),
            WORDS=_WORDS_PER_STEP,
            HAS_POPC=not knobs.runtime.interpret,
            **options,
        )

        refined = torch.empty(num_samples, size, size, dtype=torch.bool, device=device)
        matched = torch.empty(num_samples, dtype=torch.bool, device=device)
        chosen = torch.empty(num_samples, dtype=torch.int64, device=device)
        _write_refined[(num_samples, triton.cdiv(num_pixels, _PIXELS_PER_PROGRAM))](
            candidates_MW.view(torch.uint8),
            labels_BW.view(torch.uint8),
            offsets,
            scores,
            unions_BW,
            refined.view(torch.uint8),
            matched.view(torch.uint8),
            chosen,
            num_words,
            num_pixels,
            IS_IOM=config.strategy == "iom",
            IOU_RATE=config.iou_rate,
            SCORES=_SCORES_PER_STEP,
            PIXELS=_PIXELS_PER_PROGRAM,
            **options,
        )
    return MatchResult(refined=refined, matched=matched, chosen=chosen, scores=scores if return_scores else None)


def _current(device: torch.device) -> AbstractContextManager[Any]:
    """Makes the tensors' device the current one, which is where Triton launches."""
    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@triton.jit
def _pack_labels(labels, packed, num_pixels, num_bytes, BYTES: tl.constexpr):
    """Labels, uint8 [B, num_pixels] of 0 and 1 -> packed, uint8 [B, num_bytes], first pixel in the highest bit."""
    b = tl.program_id(0).to(tl.int64)
    byte = tl.program_id(1) * BYTES + tl.arange(0, BYTES)
    bit = tl.arange(0, 8)
    pixel = byte[:, None] * 8 + bit[None, :]
    values = tl.load(labels + b * num_pixels + pixel, mask=pixel < num_pixels, other=0).to(tl.int32)
    packed_bytes = tl.sum(values << (7 - bit)[None, :], axis=1)
    tl.store(packed + b * num_bytes + byte, packed_bytes.to(tl.uint8), mask=byte < num_bytes)


@triton.jit
def _count_bits(words, HAS_POPC: tl.constexpr):
    """Set bits of each int32; the interpreter lacks the instruction and adds bits, pairs, nibbles and bytes."""
    if HAS_POPC:
        return tl.inline_asm_elementwise("popc.b32 $0, $1;", "=r,r", [words], dtype=tl.int32, is_pure=True, pack=1)
    pairs = words - ((words >> 1) & 0x55555555)
    nibbles = (pairs & 0x33333333) + ((pairs >> 2) & 0x33333333)
    octets = (nibbles + (nibbles >> 4)) & 0x0F0F0F0F
    halves = octets + (octets >> 8)
    return (halves + (halves >> 16)) & 0x3F


@triton.jit
def _judge_candidates(
    candidates,
    labels,
    offsets,
    scores,
    unions,
    num_samples,
    num_words,
    CODE: tl.constexpr,
    INTER1: tl.constexpr,
    INTER2: tl.constexpr,
    SAMPLES: tl.constexpr,
    WORDS: tl.constexpr,
    HAS_POPC: tl.constexpr,
):
    """Score candidate `program_id(0)` against its image's label (eqs. 6-8); unite it with the others that qualify.

    candidates: int32 [M, num_words]. labels: int32 [B, num_words]. offsets: int64 [B + 1].
    scores: float64 [M], written. unions: int32 [B, num_words + 1], zeros at the start: the union's words, then the
    number of candidates in it.
    """
    m = tl.program_id(0).to(tl.int64)
    # Its image is the number of images that end at or before it.
    sample = tl.arange(0, SAMPLES)
    ends = tl.load(offsets + 1 + sample, mask=sample < num_samples, other=0x7FFFFFFFFFFFFFFF)
    b = tl.minimum(tl.sum((ends <= m).to(tl.int32), axis=0), num_samples - 1).to(tl.int64)
    own = candidates + m * num_words
    label = labels + b * num_words

    lane = tl.arange(0, WORDS)
    inter_lanes = tl.zeros([WORDS], dtype=tl.int32)
    area_lanes = tl.zeros([WORDS], dtype=tl.int32)
    label_lanes = tl.zeros([WORDS], dtype=tl.int32)
    for start in range(0, num_words, WORDS):
        inside = start + lane < num_words
        own_words = tl.load(own + start + lane, mask=inside, other=0)
        label_words = tl.load(label + start + lane, mask=inside, other=0)
        inter_lanes += _count_bits(own_words & label_words, HAS_POPC)
        if CODE != 1:
            area_lanes += _count_bits(own_words, HAS_POPC)
        if CODE != 2:
            label_lanes += _count_bits(label_words, HAS_POPC)
    inter = tl.sum(inter_lanes, axis=0)
    area = tl.sum(area_lanes, axis=0)
    label_area = tl.sum(label_lanes, axis=0)

    # Empty denominators go with empty intersections, so the maximum stands in for eq. 7's epsilon: score 0.
    numerator = inter.to(tl.float64)
    if CODE == 0:
        tl.store(scores + m, numerator / tl.maximum(area + label_area - inter, 1).to(tl.float64))
    else:
        s1 = numerator / tl.maximum(label_area, 1).to(tl.float64)
        s2 = numerator / tl.maximum(area, 1).to(tl.float64)
        # tl.full keeps the constants float64; a bare one would be rounded to float32.
        is_under = s1 > tl.full([], INTER1, tl.float64)
        is_over = s2 > tl.full([], INTER2, tl.float64)
        if CODE == 1:
            score = s1
            qualified = is_under
        elif CODE == 2:
            score = s2
            qualified = is_over
        else:
            score = tl.maximum(s1, s2)
            qualified = is_under | is_over
        tl.store(scores + m, score)
        if qualified:
            union = unions + b * (num_words + 1)
            tl.atomic_add(union + num_words, 1, sem="relaxed")
            for start in range(0, num_words, WORDS):
                inside = start + lane < num_words
                own_words = tl.load(own + start + lane, mask=inside, other=0)
                tl.atomic_or(union + start + lane, own_words, mask=inside & (own_words != 0), sem="relaxed")


@triton.jit
def _write_refined(
    candidates,
    labels,
    offsets,
    scores,
    unions,
    refined,
    matched,
    chosen,
    num_words,
    num_pixels,
    IS_IOM: tl.constexpr,
    IOU_RATE: tl.constexpr,
    SCORES: tl.constexpr,
    PIXELS: tl.constexpr,
):
    """Unpack piece `program_id(1)` of refined label `program_id(0)`; the first piece's program says what was chosen.

    candidates: uint8 [M, 4 * num_words]. labels: uint8 [B, 4 * num_words]. unions: int32 [B, num_words + 1].
    refined: uint8 [B, num_pixels], matched: uint8 [B], chosen: int64 [B], written.
    """
    b = tl.program_id(0).to(tl.int64)
    if IS_IOM:
        low = tl.load(offsets + b)
        num_own = (tl.load(offsets + b + 1) - low).to(tl.int32)
        best = tl.full([], -1.0, tl.float64)
        choice = tl.full([], 0, tl.int32)
        for start in range(0, num_own, SCORES):
            index = start + tl.arange(0, SCORES)
            values = tl.load(scores + low + index, mask=index < num_own, other=-1.0)
            top = tl.max(values, axis=0)
            first = tl.min(tl.where(values == top, index, 0x7FFFFFFF), axis=0)
            # Strict: among equals the lower index stays.
            choice = tl.where(top > best, first, choice)
            best = tl.maximum(top, best)
        number = tl.where(best > tl.full([], IOU_RATE, tl.float64), choice, -1)
        passed = number >= 0
        source = candidates + (low + choice) * num_words * 4
    else:
        union = unions + b * (num_words + 1)
        number = tl.load(union + num_words)
        passed = number > 0
        source = union.to(tl.pointer_type(tl.uint8))
    if tl.program_id(1) == 0:
        tl.store(matched + b, passed.to(tl.uint8))
        tl.store(chosen + b, number.to(tl.int64))

    pixel = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    inside = pixel < num_pixels
    # Pixels below the limit come from the source, the others from the label: all or none of them.
    limit = tl.where(passed, num_pixels, 0)
    from_source = tl.load(source + (pixel >> 3), mask=pixel < limit, other=0)
    from_label = tl.load(labels + b * num_words * 4 + (pixel >> 3), mask=inside & (pixel >= limit), other=0)
    bits = ((from_source | from_label).to(tl.int32) >> (7 - (pixel & 7))) & 1
    tl.store(refined + b * num_pixels + pixel, bits.to(tl.uint8), mask=inside)
