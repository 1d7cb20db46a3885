"""Candidate masks for the matching kernels, whose time hangs on sizes and not on shapes."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def ellipses(num_masks: int, size: int) -> Tensor:
    """Random ellipses, packed, uint8 [num_masks, ceil(size * size / 8)]; the first covers the image's whole height."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[0:size, 0:size]
    packed: list[NDArray[np.uint8]] = []
    for index in range(num_masks):
        y, x = random.uniform(0, size, 2)
        radius_y, radius_x = random.uniform(0.02 * size, 0.4 * size, 2)
        if index == 0:
            y, x, radius_y, radius_x = 0.5 * size, 0.5 * size, 0.5 * size, 0.2 * size
        packed.append(np.packbits(((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 <= 1))
    return torch.from_numpy(np.stack(packed))
