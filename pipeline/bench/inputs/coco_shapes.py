"""Masks shaped like SAM's on a COCO photograph, drawn from a seed: what the store's figures are measured on.

An image gets objects of very different sizes, from a few pixels to most of the image, and on each object parts nested
in it, as "segment everything" finds them. Contours are closed curves with random harmonics; some objects lose a bite
to an occluder or a hole. Sizes are set so that 100 masks of 480x640 take about what 100 of SAM's took in the public
code's format: 79 KB of JSON run lengths, 17 KB of COCO RLE (see `tests/pipeline/bench/test_coco_shapes.py`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_MIN_RADIUS, _MAX_RADIUS = 0.014, 0.29  # of the image's shorter side
_SKEW = 1.5  # the logarithm's place between them is uniform ** _SKEW: small masks are many
_PART_SHARE = 0.35  # of the masks lie inside an earlier one
_NUM_HARMONICS = 24
_ROUGHNESS = 0.22  # amplitude of the first harmonic, of the radius; the k-th has 1 / k of it


def coco_masks(seed: int, *, num_masks: int = 100, height: int = 480, width: int = 640) -> NDArray[np.bool_]:
    """Masks of one image, bool [num_masks, height, width], none empty; the same for the same arguments."""
    random = np.random.default_rng([seed, num_masks, height, width])
    masks = np.zeros((num_masks, height, width), np.bool_)
    short = min(height, width)
    for number, mask in enumerate(masks):
        parent = masks[random.integers(number)] if number and random.random() < _PART_SHARE else None
        radius = short * _MIN_RADIUS * (_MAX_RADIUS / _MIN_RADIUS) ** (random.random() ** _SKEW)
        if parent is None:
            center = random.uniform((0, 0), (height, width))
        else:
            pixels = np.flatnonzero(parent)
            center = np.array(np.divmod(random.choice(pixels), width), np.float64)
            radius = min(radius, 0.8 * np.sqrt(len(pixels)))
        _draw_blob(mask, random, center, radius)
        if random.random() < 0.3:  # an occluder's bite, or a hole
            bite = np.zeros_like(mask)
            _draw_blob(bite, random, center + random.uniform(-1, 1, 2) * radius, 0.4 * radius)
            mask &= ~bite
        if parent is not None:
            mask &= parent
        if not mask.any():
            mask[tuple(np.clip(center.astype(int), 0, (height - 1, width - 1)))] = True
    return masks


def _draw_blob(
    mask: NDArray[np.bool_], random: np.random.Generator, center: NDArray[np.float64], radius: float
) -> None:
    """Set the pixels of `mask`, bool [H, W], inside one closed curve around `center` (y, x)."""
    orders = np.arange(1, _NUM_HARMONICS + 1)
    amplitudes = _ROUGHNESS * random.normal(size=_NUM_HARMONICS) / orders
    phases = random.uniform(0, 2 * np.pi, _NUM_HARMONICS)
    angles = np.linspace(-np.pi, np.pi, 721)
    curve = np.clip(1 + (amplitudes * np.cos(np.outer(angles, orders) + phases)).sum(axis=1), 0.2, 2.5)

    aspect = np.exp(random.uniform(-0.6, 0.6))
    turn = random.uniform(0, np.pi)
    reach = 2.5 * radius * max(aspect, 1 / aspect) + 1
    top, left = np.maximum(np.floor(center - reach), 0).astype(int)
    bottom, right = np.minimum(np.ceil(center + reach), mask.shape).astype(int)
    y, x = np.mgrid[top:bottom, left:right].astype(np.float32)
    y, x = y - np.float32(center[0]), x - np.float32(center[1])
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    along, across = along / aspect, across * aspect
    inside = np.hypot(along, across) <= radius * np.interp(np.arctan2(across, along), angles, curve)
    mask[top:bottom, left:right] |= inside
