"""The two losses of mutual learning: cross-entropy on hand-made labels and on the teacher's labels.

Each is a sum over samples divided by a total that depends on the labels alone. A batch may therefore be computed in
parts, on several processes or one after the other: divided by the totals of the whole, the parts' sums add up to its
loss.

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
    """Class-weighted cross-entropy of a whole batch (eq. 1), a scalar.

    logits: float [B, 2, S, S]. target: bool [B, S, S].
    """
    total = supervised_sum(logits, target, class_weights=class_weights)
    return total / supervised_total(target, class_weights=class_weights, mean=mean).to(total.dtype)


def unsupervised_loss(
    logits: Tensor,
    refined: Tensor,
    matched: Tensor,
    weights: Tensor | None,
    *,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
    mean: LossMean = "weighted",
) -> Tensor:
    """Cross-entropy of the student's strong view against refined pseudo-labels of a whole batch (eq. 3), a scalar.

    logits, refined, matched, weights: as of `unsupervised_sums`.

    Matched samples: class-weighted cross-entropy, its `mean` over their pixels. Unmatched samples: the plain mean of w
    times cross-entropy, no class weights. Where a batch has both kinds the two means are averaged, else the
    one that exists is the loss (public code). Without PWA the kinds are not told apart: all samples take the
    class-weighted mean together.
    """
    sums = unsupervised_sums(logits, refined, matched, weights, class_weights=class_weights)
    totals = unsupervised_totals(refined, matched, pwa=weights is not None, class_weights=class_weights, mean=mean)
    return mean_of_kinds(sums, totals)


def supervised_total(
    target: Tensor,
    *,
    kept: Tensor | None = None,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
    mean: LossMean = "weighted",
) -> Tensor:
    """What `supervised_sum` is divided by, a scalar: the sum of the pixels' weights, or their number.

    target, kept: as of `supervised_sum`. float64, on MPS, which has none, float32; so are all totals.
    """
    return _weights_of_samples(target, kept, class_weights, mean).sum()


def unsupervised_totals(
    refined: Tensor,
    matched: Tensor,
    *,
    pwa: bool,
    kept: Tensor | None = None,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
    mean: LossMean = "weighted",
) -> tuple[Tensor, Tensor]:
    """What the two sums of `unsupervised_sums` are divided by, two scalars, 0 for a kind that is absent.

    refined: bool [B, S, S]. matched: bool [B]. kept: as of `unsupervised_sums`, without PWA only.
    """
    assert kept is None or not pwa
    of_samples = _weights_of_samples(refined, kept, class_weights, mean)
    if not pwa:
        return of_samples.sum(), torch.zeros_like(of_samples).sum()
    num_pixels = refined.shape[1] * refined.shape[2]
    return of_samples.masked_fill(~matched, 0.0).sum(), (~matched).sum().to(of_samples.dtype) * num_pixels


def supervised_sum(
    logits: Tensor,
    target: Tensor,
    *,
    kept: Tensor | None = None,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
) -> Tensor:
    """Sum of the class-weighted cross-entropies of all pixels (eq. 1), a scalar.

    logits: float [B, 2, S, S]. target: bool [B, S, S]. kept: bool [B, S, S], the pixels that count; None: all.
    """
    loss_BSS = _pixel_cross_entropy(logits, target)
    if kept is not None:
        loss_BSS = loss_BSS.masked_fill(~kept, 0.0)
    return (loss_BSS * _pixel_class_weights(target, class_weights, loss_BSS.dtype)).sum()


def unsupervised_sums(
    logits: Tensor,
    refined: Tensor,
    matched: Tensor,
    weights: Tensor | None,
    *,
    kept: Tensor | None = None,
    class_weights: tuple[float, float] = CLASS_WEIGHTS,
) -> tuple[Tensor, Tensor]:
    """Sums of the cross-entropies of the student's strong view against refined pseudo-labels (eq. 3): of matched
    samples class-weighted, of unmatched ones weighted by PWA; two scalars.

    logits: float [B, 2, S, S]. refined: bool [B, S, S]. matched: bool [B], whether a candidate refined the sample.
    weights: PWA's w, float [B, S, S], or None with PWA off: the kinds are then not told apart, and all samples count
    as matched. kept: bool [B, S, S], the pixels that count, without PWA only; None: all.
    """
    assert kept is None or weights is None
    if weights is None:
        total = supervised_sum(logits, refined, kept=kept, class_weights=class_weights)
        return total, torch.zeros_like(total)
    loss_BSS = _pixel_cross_entropy(logits, refined)
    matched_B11 = matched[:, None, None]
    # Filled, not multiplied with 0: a diverged sample of the other kind must not leak its inf as NaN.
    weights_matched = _pixel_class_weights(refined, class_weights, loss_BSS.dtype).masked_fill(~matched_B11, 0.0)
    sum_matched = (loss_BSS.masked_fill(~matched_B11, 0.0) * weights_matched).sum()
    return sum_matched, (loss_BSS * weights).masked_fill(matched_B11, 0.0).sum()


def mean_of_kinds(sums: tuple[Tensor, Tensor], totals: tuple[Tensor, Tensor]) -> Tensor:
    """The mean of the means of matched and unmatched samples where there are both, else the one there is."""
    # A kind that is absent has sum 0 and total 0, and its mean is to be 0.
    matched, unmatched = (
        of_kind / total.masked_fill(total == 0, 1.0).to(of_kind.dtype)
        for of_kind, total in zip(sums, totals, strict=True)
    )
    num_kinds = (totals[0] > 0).to(matched.dtype) + (totals[1] > 0).to(matched.dtype)
    return (matched + unmatched) / num_kinds


def mean_of_labels(sums: tuple[Tensor, Tensor], totals: tuple[Tensor, Tensor]) -> Tensor:
    """The mean over matched and unmatched samples together: of ten labels of which one is unmatched, that one has a
    tenth of the weight, where in `mean_of_kinds` it has half."""
    total = sums[0] + sums[1]
    return total / (totals[0] + totals[1]).to(total.dtype)


def _weights_of_samples(
    target: Tensor, kept: Tensor | None, class_weights: tuple[float, float], mean: LossMean
) -> Tensor:
    """The sum of the class weights of each sample's pixels, or under the plain mean their number, float64 [B]."""
    dtype = torch.float32 if target.device.type == "mps" else torch.float64
    num_pixels = torch.full((len(target),), target.shape[1] * target.shape[2], dtype=dtype, device=target.device)
    if kept is not None:
        num_pixels, target = kept.sum(dim=(1, 2)).to(dtype), target & kept
    if mean == "plain":
        return num_pixels
    background, referent = class_weights
    num_referent = target.sum(dim=(1, 2)).to(dtype)
    return (num_pixels - num_referent) * background + num_referent * referent


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
