"""A mask of any size, refined by candidates: the matching kernels without their packing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.cache.candidates import Candidates
from semires.stages.data.errors import InputError
from semires.stages.train.matching import MatchConfig, Strategy, match_oblong, pack_bits

MaskT = TypeVar("MaskT", NDArray[np.bool_], Tensor)


@dataclass(frozen=True, kw_only=True, eq=False)
class Match(Generic[MaskT]):
    """What matching made of a mask; arrays are numpy's or torch's, as the mask was."""

    refined: MaskT
    """bool [H, W]: the refined mask, the mask itself where no candidate qualified."""
    matched: bool
    """Whether a candidate qualified."""
    chosen: int
    """IOM: the index of the candidate that replaced the mask, -1 where none did. CPI family: the number united."""
    scores: MaskT
    """float64 [M] (float32 on MPS): what each candidate was judged by; see `MatchResult.scores`."""


def match(
    mask: MaskT,
    candidates: Candidates | NDArray[np.bool_] | Tensor,
    strategy: Strategy = "cpi-u",
    *,
    iou_rate: float = MatchConfig.iou_rate,
    inter1: float = MatchConfig.inter1,
    inter2: float = MatchConfig.inter2,
) -> Match[MaskT]:
    """Refine a mask by candidates of its image, as SemiRES refines pseudo-labels (eqs. 6-8, Algorithm 1).

    >>> import numpy as np, semires
    >>> mask = np.zeros((4, 6), dtype=bool)
    >>> mask[1:3, 1:4] = True  # 6 pixels
    >>> whole, corner = np.zeros((2, 4, 6), dtype=bool)
    >>> whole[1:4, 1:5] = True  # has all of them
    >>> corner[:2, :2] = True  # has one
    >>> found = semires.match(mask, np.stack([whole, corner]))
    >>> found.matched, found.chosen, found.scores.round(2).tolist()
    (True, 1, [1.0, 0.17])
    >>> bool((found.refined == whole).all())
    True
    >>> semires.match(mask, np.stack([whole, corner]), "iom", iou_rate=0.6).matched  # its IoU is 0.5
    False

    mask: bool [H, W], numpy's or torch's. candidates: bool [M, H, W], or the `Candidates` of a store or a generator. On
    a GPU where the mask is. strategy: iom takes the one candidate of highest IoU above `iou_rate`; cpi-u unites those
    that hold more than `inter1` of the mask, cpi-o those of which the mask holds more than `inter2`, cpi both.

    InputError for other dtypes or sizes, an unknown strategy, or a threshold outside 0 to 1.
    """
    config = MatchConfig(strategy=strategy, iou_rate=iou_rate, inter1=inter1, inter2=inter2)
    label = _tensor("mask", mask, 2)
    if isinstance(candidates, Candidates):
        size, packed = (candidates.height, candidates.width), torch.from_numpy(candidates.flat_bits())
    else:
        masks = _tensor("candidates", candidates, 3)
        size, packed = (masks.shape[1], masks.shape[2]), pack_bits(masks)
    if size != tuple(label.shape):
        raise InputError(
            f"expected candidates of the mask's size {list(label.shape)}, found {list(size)}: resize one of them"
        )
    found = match_oblong(packed.to(label.device), label, config, return_scores=True)
    assert found.scores is not None
    return Match(
        refined=_like(mask, found.refined[0]),
        matched=bool(found.matched),
        chosen=int(found.chosen),
        scores=_like(mask, found.scores),
    )


def _tensor(what: str, array: NDArray[np.bool_] | Tensor, ndim: int) -> Tensor:
    tensor = array if isinstance(array, Tensor) else torch.from_numpy(np.ascontiguousarray(array))
    if tensor.dtype != torch.bool or tensor.ndim != ndim:
        axes = "[H, W]" if ndim == 2 else "[M, H, W]"
        raise InputError(f"{what}: expected bool {axes}, found {tensor.dtype} {list(tensor.shape)}: convert it")
    return tensor


def _like(mask: MaskT, tensor: Tensor) -> MaskT:
    return tensor if isinstance(mask, Tensor) else tensor.cpu().numpy()
