"""`match` checks what it is given and hands it to the backend of the device.

A batch is B pseudo-labels of S x S pixels and the M candidate masks of their images one after another; image b owns
candidates ``offsets[b]:offsets[b + 1]``. A mask is P = ceil(S * S / 8) bytes, row-major, first pixel in the highest bit
(``numpy.packbits``), bits after the last pixel zero. Candidates, label and union stay packed: an intersection is AND +
popcount, a union over candidates is OR, and only the refined label is unpacked.

The device of the candidates chooses the backend, and each is held equal to ``reference`` by property tests:

    cpu               CPU        one loop compiled by numba, on torch's number of threads
    triton_kernels    CUDA       three kernels, no host synchronisation
    torch_ops         CUDA       torch's integer operators where Triton is missing; no host synchronisation either
    dense             the rest   dense boolean masks, one image at a time (MPS)

Axes in tensor names, here and in the backends: B samples, M or N candidates (of the batch, of one image), P bytes,
W words.
"""

from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from itertools import pairwise

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.matching.config import MatchConfig, MatchResult
from semires.stages.train.matching.packed import unpack_bits

Backend = Callable[[Tensor, Tensor, Tensor, int, MatchConfig, bool], MatchResult]


def match(
    candidates: Tensor,
    offsets: Tensor,
    labels: Tensor,
    config: MatchConfig,
    *,
    size: int | None = None,
    return_scores: bool = False,
) -> MatchResult:
    """Refine B pseudo-labels against the candidates of their images (eqs. 6-8, Algorithm 1).

    candidates: uint8 [M, P], packed as the module says. offsets: int64 [B + 1], on the CPU or on the candidates'
    device. labels: bool [B, S, S], or packed uint8 [B, P] together with ``size`` = S, on the candidates' device.
    return_scores: whether the result carries each candidate's score (`MatchResult.scores`).
    Any strides will do; what is not contiguous is copied first.

    Thresholds are strict and ties go to the lower index. Scores are integer counts divided in float64: with fewer than
    2^26 pixels (up to 8191 x 8191) two different ratios never round together, and 7 pixels of 10 round to the very
    float that 0.7 is, so every decision is that of exact arithmetic. An empty label, an image without candidates and
    an empty candidate match nothing.

    Worked case, S = 2, cpi-u at 0.7: P covers 4 pixels; candidates {3 of them} and {2 of them} score 0.75 and 0.5, so
    the first alone is the refined label.

    Raises InputError where shapes or dtypes disagree, above all when the candidates were packed at another size.
    Offsets on an accelerator are trusted: looking at them would make the host wait.
    """
    size = _label_size(labels, size)
    num_bytes = -(-size * size // 8)
    if candidates.dtype != torch.uint8 or candidates.ndim != 2 or candidates.shape[1] != num_bytes:
        raise InputError(
            f"expected candidates packed at {size}x{size} pixels (uint8 [M, {num_bytes}]), found "
            f"{candidates.dtype} {list(candidates.shape)}: read the candidate view of that size"
        )
    if labels.device != candidates.device or offsets.device not in (candidates.device, torch.device("cpu")):
        raise InputError(
            f"expected labels beside the candidates on {candidates.device} and offsets there or on the CPU, found "
            f"{labels.device} and {offsets.device}: move them with .to()"
        )
    _check_offsets(offsets, len(labels), len(candidates))
    if len(candidates) == 0 or labels.numel() == 0:
        return _all_unmatched(candidates, labels, size, config, return_scores)
    backend = backend_of(candidates.device.type)
    return backend(candidates, offsets, labels, size, config, return_scores)


@cache
def backend_of(device_type: str) -> Backend:
    """The backend for tensors of a device type, as the module lists them; imported at its first use."""
    if device_type == "cpu":
        from semires.stages.train.matching.cpu import match_cpu

        return match_cpu
    if device_type == "cuda":
        # The kernels count bits with an instruction of NVIDIA's; torch calls AMD's devices "cuda" too.
        if torch.version.cuda is not None and find_spec("triton") is not None:
            from semires.stages.train.matching.triton_kernels import match_triton

            return match_triton
        from semires.stages.train.matching.torch_ops import match_torch

        return match_torch
    from semires.stages.train.matching.dense import match_dense

    return match_dense


def _all_unmatched(
    candidates: Tensor, labels: Tensor, size: int, config: MatchConfig, return_scores: bool
) -> MatchResult:
    """The result where there is no candidate, no label or no pixel: the labels as they are."""
    # MPS has no float64.
    dtype = torch.float32 if candidates.device.type == "mps" else torch.float64
    return MatchResult(
        refined=labels.clone() if labels.dtype == torch.bool else unpack_bits(labels, size),
        matched=torch.zeros(len(labels), dtype=torch.bool, device=labels.device),
        chosen=torch.full((len(labels),), config.no_choice, device=labels.device),
        scores=torch.zeros(len(candidates), dtype=dtype, device=labels.device) if return_scores else None,
    )


def _check_offsets(offsets: Tensor, num_labels: int, num_candidates: int) -> None:
    """InputError where the offsets, as far as the host can see them, do not cut the candidates into the labels'."""
    if offsets.dtype != torch.int64 or offsets.shape != (num_labels + 1,):
        raise InputError(
            f"expected {num_labels + 1} offsets (int64), found {offsets.dtype} {list(offsets.shape)}: "
            "pass one offset more than there are labels"
        )
    if offsets.device.type != "cpu":
        return
    bounds: list[int] = offsets.tolist()
    if bounds[0] != 0 or bounds[-1] != num_candidates or any(high < low for low, high in pairwise(bounds)):
        raise InputError(
            f"expected {num_labels + 1} rising offsets from 0 to {num_candidates}, found {bounds}: "
            "pass where each label's candidates begin, then their number"
        )


def _label_size(labels: Tensor, size: int | None) -> int:
    """S of labels given dense, bool [B, S, S], or packed, uint8 [B, P] with size=S; InputError for anything else."""
    if labels.dtype == torch.bool and labels.ndim == 3 and labels.shape[1] == labels.shape[2]:
        if size not in (None, labels.shape[1]):
            raise InputError(f"expected labels of size {size}, found {list(labels.shape)}: leave size out")
        return labels.shape[1]
    if (
        labels.dtype == torch.uint8
        and labels.ndim == 2
        and size is not None
        and labels.shape[1] == -(-size * size // 8)
    ):
        return size
    raise InputError(
        f"expected labels as bool [B, S, S], or packed uint8 [B, ceil(S * S / 8)] with size=S, found "
        f"{labels.dtype} {list(labels.shape)} with size={size}: pass one of the two forms"
    )
