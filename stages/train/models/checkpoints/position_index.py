"""Swin's `relative_position_index` of a converted checkpoint, where it is not Swin's own.

It follows from the window, but it is a buffer, and SemiRES averages its teacher's buffers like weights: at the first
update a tenth of the entries move by one and stay so. Such a teacher was measured with its own index, so it keeps it.
"""

import os
import re
from collections.abc import Mapping

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.swin import INDEX, TABLE
from semires.stages.train.models.lavt import Lavt


def restore_position_index(lavt: Lavt, tensors: Mapping[str, Tensor], source: str | os.PathLike[str]) -> None:
    """Give blocks the `backbone.layers.I.blocks.J.attn.relative_position_index`, int64 [A, A], that `tensors` has.

    InputError for one of another shape or type, one of no block, and one that points outside its table.
    """
    for name, index in tensors.items():
        place = re.fullmatch(rf"backbone\.layers\.(\d+)\.blocks\.(\d+)\.attn\.{INDEX}", name)
        if place is None:
            continue
        stage, number = int(place[1]), int(place[2])
        layers = lavt.visual.layers
        if stage >= len(layers) or number >= len(layers[stage].blocks):
            raise InputError(f"expected an index of a block of the model, found {name} in {source}: convert it again")
        bias = layers[stage].blocks[number].attention.relative_position_bias
        own, rows = bias.relative_position_index, len(getattr(bias, TABLE))
        if index.shape != (bias.window_area,) * 2 or index.dtype != own.dtype or index.min() < 0 or index.max() >= rows:
            raise InputError(
                f"expected int64 {[bias.window_area] * 2} from 0 to {rows - 1} in {name} of {source}, found others: "
                "convert it again"
            )
        with torch.no_grad():
            own.copy_(index.reshape(own.shape))


def position_index_of(lavt: Lavt) -> dict[str, Tensor]:
    """Every block's index, int64 [A, A], by the names that `restore_position_index` reads."""
    return {
        f"backbone.layers.{stage}.blocks.{number}.attn.{INDEX}": bias.relative_position_index.detach()
        .cpu()
        .view(bias.window_area, -1)
        for stage, layer in enumerate(lavt.visual.layers)
        for number, bias in enumerate(block.attention.relative_position_bias for block in layer.blocks)
    }
