"""LAVT's light segmentation head: top-down, from the coarsest stage to the finest (Yang et al., CVPR 2022)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_CLASSES = 2
"""Channels of the logits: background, referent."""


class Decoder(nn.Module):
    """Two 3 x 3 convolutions a level, over the upsampled coarse features beside the finer ones; then a 1 x 1.

    channels: of the stages, finest first. width: channels of every level.

    Batch norm pools over samples and positions, so batch size 1 trains, but its statistics are then those of one
    image; in evaluation the running statistics make a sample independent of its batch.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        super().__init__()
        *finer, coarsest = channels
        levels = []
        incoming = coarsest
        for stage_channels in reversed(finer):
            levels.append(_level(incoming + stage_channels, width))
            incoming = width
        self.levels = nn.ModuleList(levels)
        self.classify = nn.Conv2d(width, NUM_CLASSES, 1)

    def forward(self, features: Sequence[Tensor]) -> Tensor:
        """Logits float32 [B, 2, H, W] at the size of the finest stage.

        features: float32 [B, C, H, W] of each stage, finest first.
        """
        *finer, coarse = features
        for level, fine in zip(self.levels, reversed(finer), strict=True):
            coarse = level(torch.cat([upsample(coarse, fine.shape[-2:]), fine], dim=1))
        return self.classify(coarse)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize float32 [B, C, h, w] to `size` = (height, width), bilinear with aligned corners, as LAVT does."""
    if maps.shape[-2:] == tuple(size):
        return maps
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)


def _level(in_channels: int, width: int) -> nn.Sequential:
    # No biases: the batch norms subtract them again.
    return nn.Sequential(
        nn.Conv2d(in_channels, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
    )
