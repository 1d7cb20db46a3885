"""Matching on the CPU: one compiled loop over the packed candidates, on torch's number of threads.

A candidate is compared with its label only between the label's first and last set byte; its area is counted right
after, while its bytes are in cache, and only where it can change the answer. The refined label is then a copy of the
best candidate, or the OR of those that qualified.

numba compiles the loop when this module is imported, which `match` does at its first call on the CPU, and keeps it on
disk, in `__pycache__` or its user cache; where neither can be written each process compiles anew. Machines with
different processors that share these folders: set NUMBA_CACHE_DIR to a local one. In seconds of one idle core of an
AMD EPYC (Zen 3): importing numba 0.25, compiling 1.1, loading what is on disk 0.4.

Measured there beside a memory-cold copy of the candidates, 100 at 480x480, of 0.25 to 0.4 ms: the loop 0.2 to 0.27 ms,
as long as only reading them takes; around it, labels, result and code come from memory too.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numba import njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray
from torch import Tensor

from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.packed import pack_bits, unpack_bits

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]

# Strategies as the compiled loop knows them.
_STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")
_IOM, _CPI, _CPI_U, _CPI_O = range(4)

# Below this many bytes of candidates for each thread, starting the thread costs more than it saves.
_BYTES_PER_THREAD = 4 << 20


def match_cpu(
    candidates: Tensor, offsets: Tensor, labels: Tensor, size: int, config: MatchConfig, return_scores: bool
) -> MatchResult:
    """Match on the CPU; arguments as `matching.match` has checked them, M and B at least 1.

    Needs, beside the result, the packed labels twice and some numbers for each candidate; candidates that are not
    contiguous are copied.
    """
    candidates_MP: Bytes = np.ascontiguousarray(candidates.numpy())
    # Packing keeps an order of axes other than the rows'.
    labels_BP: Bytes = np.ascontiguousarray((pack_bits(labels) if labels.dtype == torch.bool else labels).numpy())
    scores, qualified = _judge(candidates_MP, labels_BP, np.ascontiguousarray(offsets.numpy()), config, return_scores)

    refined_BP = labels_BP.copy()
    matched = np.zeros(len(labels_BP), dtype=bool)
    chosen = np.full(len(labels_BP), config.no_choice)
    for b, (low, high) in enumerate(pairwise(offsets.tolist())):
        rows = low + np.flatnonzero(qualified[low:high])
        if len(rows) == 0:
            continue
        matched[b] = True
        if config.strategy == "iom":
            chosen[b] = scores[low:high].argmax()  # the first of equals
            refined_BP[b] = candidates_MP[low + chosen[b]]
        else:
            chosen[b] = len(rows)
            refined_BP[b] = candidates_MP[rows[0]]
            for row in rows[1:]:
                np.bitwise_or(refined_BP[b], candidates_MP[row], out=refined_BP[b])
    return MatchResult(
        refined=unpack_bits(torch.from_numpy(refined_BP), size),
        matched=torch.from_numpy(matched),
        chosen=torch.from_numpy(chosen),
        scores=torch.from_numpy(scores) if return_scores else None,
    )


def _judge(
    candidates_MP: Bytes, labels_BP: Bytes, offsets: Counts, config: MatchConfig, every_score: bool
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Score, float64 [M], and whether it qualifies, bool [M]; not `every_score`: 0 for some that do not qualify.

    The threads live as long as the call. A pool kept for later would be dead in a process forked meanwhile, as data
    loaders fork theirs, and would hang it.
    """
    num_candidates = len(candidates_MP)
    scores = np.zeros(num_candidates)
    qualified = np.zeros(num_candidates, dtype=bool)
    strategy = _STRATEGIES.index(config.strategy)
    limits = (config.iou_rate, config.inter1, config.inter2)

    def judge(low: int, high: int) -> None:
        _judge_rows(candidates_MP, labels_BP, offsets, strategy, *limits, every_score, low, high, scores, qualified)

    num_threads = min(torch.get_num_threads(), candidates_MP.nbytes // _BYTES_PER_THREAD, num_candidates)
    if num_threads <= 1:
        judge(0, num_candidates)
    else:
        cuts = [num_candidates * thread // num_threads for thread in range(num_threads + 1)]
        with ThreadPoolExecutor(num_threads) as pool:
            list(pool.map(judge, cuts[:-1], cuts[1:]))
    return scores, qualified


def _compiled(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compile a function for that signature now, or load what an earlier process compiled."""

    def compile_now(function: Callable[..., None]) -> Callable[..., None]:
        try:
            return njit(signature, nogil=True, cache=True)(function)
        except Exception:  # nowhere to write, the disk filled up, or what lies there is damaged
            return njit(signature, nogil=True)(function)

    return compile_now


@intrinsic
def _popcount(typing: Any, value: Any) -> Any:
    """The set bits of an integer; LLVM counts those of a whole vector where it is in a loop."""
    return value(value), lambda context, builder, signature, args: builder.ctpop(args[0])


@intrinsic
def _word_at(typing: Any, row: Any, index: Any) -> Any:
    """Bytes index .. index + 7 of a contiguous row as one word, wherever the row begins."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        array = context.make_array(signature.args[0])(context, builder, args[0])
        word_pointer = context.get_value_type(types.uint64).as_pointer()
        pointer = builder.bitcast(builder.gep(array.data, [args[1]]), word_pointer)
        # Rows of P bytes begin at any address.
        return builder.load(pointer, align=1)

    return types.uint64(row, types.intp), generate


@njit
def _shared_bits(a_P: Bytes, b_P: Bytes) -> np.uint64:
    """The bits that two rows share."""
    count = np.uint64(0)
    num_in_words = len(a_P) // 8 * 8
    for start in range(0, num_in_words, 8):
        count += _popcount(_word_at(a_P, start) & _word_at(b_P, start))
    for index in range(num_in_words, len(a_P)):
        count += np.uint64(_popcount(a_P[index] & b_P[index]))
    return count


@_compiled(
    "void(uint8[:, ::1], uint8[:, ::1], int64[::1], int64, float64, float64, float64, boolean, int64, int64, "
    "float64[::1], boolean[::1])"
)
def _judge_rows(
    candidates_MP: Bytes,
    labels_BP: Bytes,
    offsets: Counts,
    strategy: int,
    iou_rate: float,
    inter1: float,
    inter2: float,
    every_score: bool,
    low: int,
    high: int,
    scores: NDArray[np.float64],
    qualified: NDArray[np.bool_],
) -> None:
    """`_judge` for candidates low .. high - 1; scores and qualified come in as zeros."""
    for b in range(len(labels_BP)):
        first, last = max(low, offsets[b]), min(high, offsets[b + 1])
        if first >= last:
            continue
        label_P = labels_BP[b]
        start, stop = 0, len(label_P)
        while start < stop and label_P[start] == 0:
            start += 1
        while start < stop and label_P[stop - 1] == 0:
            stop -= 1
        span_P = label_P[start:stop]
        label_area = _shared_bits(span_P, span_P)
        for m in range(first, last):
            inter = _shared_bits(candidates_MP[m, start:stop], span_P)
            if inter == 0:  # no score and no match; below, no denominator is 0
                continue
            # The union is the label at least: what misses the rate over the label alone misses it.
            if strategy == _IOM and not every_score and inter / label_area <= iou_rate:
                continue
            area = _shared_bits(candidates_MP[m], candidates_MP[m]) if strategy != _CPI_U else inter
            if strategy == _IOM:
                scores[m] = inter / (label_area + area - inter)
                qualified[m] = scores[m] > iou_rate
                continue
            s1 = inter / label_area if strategy != _CPI_O else 0.0
            s2 = inter / area if strategy != _CPI_U else 0.0
            scores[m] = max(s1, s2)
            qualified[m] = s1 > inter1 or s2 > inter2
