"""Pixel-wise weight adjustment (PWA): how much an unrefined pseudo-label counts, pixel by pixel."""

import math

import torch
from torch import Tensor

from semires.stages.data.errors import InputError


def pwa_weights(prob: Tensor, *, gamma: float = 1.3, sigma2: float = 0.1, mu: float = 0.5) -> Tensor:
    """Loss weights of pixels from the teacher's foreground probability (eqs. 9-10).

    w(p) = gamma - exp(-(p - mu)^2 / (2 sigma2)) / (sqrt(2 pi) sigma): least where the teacher wavers, at p = mu. With
    the paper's values w(0.5) = 0.0384 and w(0) = w(1) = 0.9386.

    prob: float [B, S, S] in [0, 1], on any device; the weights are made there, the host reads nothing back. Returns the
    same shape and dtype, without gradient.
    Raises InputError where sigma2 is not positive, or where gamma is below the peak it is lowered by: weights below
    zero would reward the student for being wrong.
    """
    if not sigma2 > 0:
        raise InputError(f"expected a PWA variance sigma2 above 0, found {sigma2}: the paper's is 0.1")
    peak = 1.0 / math.sqrt(2.0 * math.pi * sigma2)
    if gamma < peak:
        raise InputError(
            f"expected PWA's gamma to be at least 1 / sqrt(2 pi sigma2) = {peak:.4f}, found {gamma}: "
            "raise gamma or sigma2, or weights turn negative"
        )
    with torch.no_grad():
        return gamma - peak * torch.exp((prob - mu).square() / (-2.0 * sigma2))
