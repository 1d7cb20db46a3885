"""LAVT's light segmentation head: top-down, from the coarsest stage to the finest (Yang et al., CVPR 2022)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semires.stages.train.models.lavt.per_size import once_per_size

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
            convolution: Any
            convolution, *rest = level.children()
            # The first convolution reads coarse features beside fine ones, so it is the sum of one over either.
            of_coarse, of_fine = convolution.weight.split([coarse.shape[1], fine.shape[1]], dim=1)
            coarse = convolve_upsampled(coarse, of_coarse, fine.shape[-2:])
            if coarse.device.type == "cpu":
                # Both come with channels last, the layout that GPUs convolve fastest. Batch norm is less exact in it on
                # the CPU, and convolutions of LAVT-base 1.1 x slower, backward included (LAVT-nano's 1.1 x faster).
                coarse, fine = coarse.contiguous(), fine.contiguous()
            coarse = coarse + F.conv2d(fine, of_fine, padding=1)
            for layer in rest:
                coarse = layer(coarse)
        return self.classify(coarse)


def upsample(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Resize float32 [B, C, h, w] to `size` = (height, width), bilinear with aligned corners, as LAVT does."""
    return F.interpolate(maps, size=list(size), mode="bilinear", align_corners=True)


def convolve_upsampled(maps: Tensor, weight: Tensor, size: Sequence[int]) -> Tensor:
    """`F.conv2d(upsample(maps, size), weight, padding=1)`, float32 [B, O, *size].

    maps: float32 [B, C, h, w]. weight: float32 [O, C, 3, 3].

    Upsampling mixes positions and leaves channels alone, a tap of the convolution the other way round, so they
    commute: the nine taps multiply the few coarse positions, and then a matrix product an axis resizes, shifts and sums
    their results. A third of the multiplications at LAVT-base's finest level: 1.8 x as fast, backward included.
    """
    (batch, channels, height, width), out_channels = maps.shape, weight.shape[0]
    positions = maps.permute(0, 2, 3, 1).reshape(-1, channels)
    # Axes: i, j rows and columns of the kernel; h, w positions before and H, W after upsampling. bmm over expanded
    # matrices where matmul would copy transposed results.
    taps_i_Bhw_jO = torch.bmm(positions.expand(3, -1, -1), weight.permute(2, 1, 3, 0).flatten(2))
    taps_iBh_wj_O = taps_i_Bhw_jO.view(3 * batch * height, width * 3, out_channels)
    to_columns = _resize_and_shift(width, size[1], like=maps).transpose(1, 2).flatten(1)
    taps_iBh_W_O = torch.bmm(to_columns.expand(3 * batch * height, -1, -1), taps_iBh_wj_O)
    taps_B_ih_WO = taps_iBh_W_O.view(3, batch, height, -1).transpose(0, 1).flatten(1, 2)
    to_rows = _resize_and_shift(height, size[0], like=maps).flatten(1)
    convolved_B_H_WO = torch.bmm(to_rows.expand(batch, -1, -1), taps_B_ih_WO)
    return convolved_B_H_WO.unflatten(2, (size[1], out_channels)).permute(0, 3, 1, 2)


@once_per_size
def _resize_and_shift(source: int, target: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[target, 3, source]: what each source position gives to the left, own and right neighbour of each target.

    Bilinear with aligned corners: target t lies at t * (source - 1) / (target - 1) and takes 1 - distance of the
    positions that are nearer than 1. Neighbours beyond the border are the convolution's padding and take nothing.
    """
    neighbours = torch.arange(target, device=device)[:, None] + torch.arange(-1, 2, device=device)
    sources = torch.arange(source, device=device)
    # In whole numbers up to the division, so that the weights are exact to rounding.
    distance = (neighbours[..., None] * (source - 1) - sources * (target - 1)).abs().to(dtype) / (target - 1)
    inside = (neighbours >= 0) & (neighbours < target)
    return (1 - distance).clamp(min=0) * inside[..., None]


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
