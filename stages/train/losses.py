"""The two losses of mutual learning: cross-entropy on hand-made labels and on the teacher's labels.

Logits have two channels, background and referent. Class weights are (background, referent), 0.9 and 1.1 in the public
code. They are computed in the logits' precision, float32 at least. Everything stays on the device: no branch looks at a
value, so no step waits for one.

A class-weighted mean is torch's weighted one, the sum of weighted terms over the sum of weights as
``torch.nn.CrossEntropyLoss(weight=...)`` has it, or the plain one, over the number of pixels, as the public code has it
in mutual learning: with the weights above 0.9 (no referent) to 1.1 (all referent) times the former.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

CLASS_WEIGHTS = (0.9, 1.1)
LossMean = Literal["weighted", "plain"]


def supervised_loss(
    logits: Tensor,
    target: Tensor,
    *,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
    mean: LossMean = "weighted",
) -> Tensor:
    """Class-weighted cross-entropy (eq. 1), a scalar.

    logits: float [B, 2, S, S]. target: bool [B, S, S].
    """
    loss_BSS = _pixel_cross_entropy(logits, target)
    weights = _pixel_class_weights(target, class_weights, loss_BSS.dtype)
    total = (loss_BSS * weights).sum()
    return total / (weights.sum() if mean == "weighted" else weights.numel())


def unsupervised_loss(
    logits: Tensor,
    refined: Tensor,
    matched: Tensor,
    weights: Tensor | None,
    *,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
    mean: LossMean = "weighted",
) -> Tensor:
    """Cross-entropy of the student's strong view against refined pseudo-labels (eq. 3), a scalar.

    logits: float [B, 2, S, S]. refined: bool [B, S, S]. matched: bool [B], whether a candidate refined the sample.
    weights: PWA's w, float [B, S, S], or None with PWA off.

    Matched samples: class-weighted cross-entropy, its `mean` over their pixels. Unmatched samples: the plain mean of w
    times cross-entropy, no class weights. Where a batch has both kinds the two means are averaged, else the
    one that exists is the loss (public code). Without PWA the kinds are not told apart: all samples take the
    class-weighted mean together.
    """
    if weights is None:
        return supervised_loss(logits, refined, class_weights=class_weights, mean=mean)
    loss_BSS = _pixel_cross_entropy(logits, refined)
    matched_B11 = matched[:, None, None]
    # Filled, not multiplied with 0: a diverged sample of the other kind must not leak its inf as NaN.
    weights_matched = _pixel_class_weights(refined, class_weights, loss_BSS.dtype).masked_fill(~matched_B11, 0.0)
    sum_matched = (loss_BSS.masked_fill(~matched_B11, 0.0) * weights_matched).sum()
    sum_unmatched = (loss_BSS * weights).masked_fill(matched_B11, 0.0).sum()

    num_pixels = refined[0].numel()
    num_unmatched = (~matched).sum() * num_pixels
    # A kind that is absent has sum 0 and count 0: the clamps turn its mean into 0.
    if mean == "weighted":
        smallest = min(class_weights)
        mean_matched = sum_matched / weights_matched.sum().clamp(min=smallest)
    else:
        mean_matched = sum_matched / (matched.sum() * num_pixels).clamp(min=1)
    mean_unmatched = sum_unmatched / num_unmatched.clamp(min=1)
    num_kinds = matched.any().float() + (~matched).any().float()
    return (mean_matched + mean_unmatched) / num_kinds


def _pixel_cross_entropy(logits: Tensor, target: Tensor) -> Tensor:
    """Two-class cross-entropy of each pixel, float32 [B, S, S], of float64 logits float64.

    Two classes make it the binary cross-entropy of the logits' difference: the same value as ``cross_entropy``, without
    an int64 copy of the target, and deterministic on CUDA, where torch lists its NLL loss as not.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    margin = logits[:, 1] - logits[:, 0]
    return F.binary_cross_entropy_with_logits(margin, target.to(margin.dtype), reduction="none")


def _pixel_class_weights(target: Tensor, class_weights: tuple[float, float], dtype: torch.dtype) -> Tensor:
    """The class weight of each pixel, [B, S, S]."""
    background, referent = class_weights
    # masked_fill takes its number along with the launch; torch.where may copy one from the host and wait for that.
    return torch.full(target.shape, background, dtype=dtype, device=target.device).masked_fill(target, referent)
