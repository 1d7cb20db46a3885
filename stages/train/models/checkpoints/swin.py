"""Microsoft's Swin Transformer: its state dict as that of our visual trunk (transformers' names), and other windows.

Its keys (microsoft/Swin-Transformer): `patch_embed.{proj,norm}`, `layers.I.blocks.J.{norm1,attn,norm2,mlp}`,
`layers.I.downsample.{norm,reduction}`, `norm`, `head`. LAVT's backbone has the same ones without `norm` and `head`.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import Piece, renamed

TABLE = "relative_position_bias_table"
INDEX = "relative_position_index"
MASK = "attn_mask"


@dataclass(frozen=True, kw_only=True)
class SwinSizes:
    """What the shapes of Swin's tensors tell."""

    embed_dim: int
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    window: int
    patch: int


def swin_sizes(tensors: Mapping[str, Tensor], source: str | os.PathLike[str], prefix: str = "") -> SwinSizes:
    """The sizes of the Swin whose keys begin with `prefix`; InputError where they tell none."""
    patches = shape_of(tensors, f"{prefix}patch_embed.proj.weight", 4, source)
    blocks: dict[int, int] = {}
    for name in tensors:
        found = re.match(r"layers\.(\d{1,3})\.blocks\.(\d{1,3})\.", name.removeprefix(prefix))
        if found is not None and name.startswith(prefix):
            blocks[int(found[1])] = max(blocks.get(int(found[1]), 0), int(found[2]) + 1)
    depths = tuple(blocks.get(stage, 0) for stage in range(max(blocks, default=-1) + 1))
    if not depths or 0 in depths:
        raise InputError(f"expected stages of Swin blocks in {source}, found {list(depths)} blocks: check the file")
    tables = [
        shape_of(tensors, f"{prefix}layers.{stage}.blocks.0.attn.{TABLE}", 2, source) for stage in range(len(depths))
    ]
    return SwinSizes(
        embed_dim=patches[0],
        depths=depths,
        heads=tuple(heads for _, heads in tables),
        window=window_of_table(tables[0][0], source),
        patch=patches[2],
    )


def swin_pieces(depths: Sequence[int], theirs: str = "", ours: str = "") -> list[Piece]:
    """What Swin's keys after the prefix `theirs` are in a SwinTrunk, whose names begin with `ours`.

    Without the last norm and the classifier, which the trunk does not have, and without `relative_position_index` and
    `attn_mask`, which follow from the window.
    """
    pieces = renamed(f"{theirs}patch_embed.proj", f"{ours}embeddings.patch_embeddings.projection")
    pieces += renamed(f"{theirs}patch_embed.norm", f"{ours}embeddings.norm")
    for stage, depth in enumerate(depths):
        for number in range(depth):
            there, here = (f"{prefix}layers.{stage}.blocks.{number}" for prefix in (theirs, ours))
            pieces += renamed(f"{there}.norm1", f"{here}.layernorm_before")
            pieces += renamed(f"{there}.norm2", f"{here}.layernorm_after")
            for name in ("weight", "bias"):
                projections = tuple(f"{here}.attention.{part}_proj.{name}" for part in "qkv")
                pieces.append(Piece(f"{there}.attn.qkv.{name}", projections))
            pieces += renamed(f"{there}.attn.proj", f"{here}.attention.o_proj")
            pieces += renamed(f"{there}.attn", f"{here}.attention.relative_position_bias", [TABLE])
            pieces += renamed(f"{there}.mlp.fc1", f"{here}.mlp.fc1") + renamed(f"{there}.mlp.fc2", f"{here}.mlp.fc2")
        if stage < len(depths) - 1:
            there, here = (f"{prefix}layers.{stage}.downsample" for prefix in (theirs, ours))
            pieces += renamed(f"{there}.norm", f"{here}.norm")
            pieces += renamed(f"{there}.reduction", f"{here}.reduction", ["weight"])
    return pieces


def position_index(window: int) -> Tensor:
    """Swin's `relative_position_index`, int64 [A, A] with A = window * window.

    The row of the table that holds the bias of query position a and key position b, row-major: with (y, x) their
    difference, (y + window - 1) * (2 * window - 1) + x + window - 1.
    """
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    down = rows.flatten()[:, None] - rows.flatten()[None] + window - 1
    right = columns.flatten()[:, None] - columns.flatten()[None] + window - 1
    return down * (2 * window - 1) + right


def window_of_table(rows: int, source: str | os.PathLike[str]) -> int:
    """The window whose table of relative positions has so many rows: (2 * window - 1) squared."""
    side = round(rows**0.5)
    if side * side != rows or side % 2 == 0:
        raise InputError(
            f"expected tables of (2 * window - 1) squared relative positions in {source}, found {rows} rows: "
            "check the file"
        )
    return (side + 1) // 2


def resize_tables(state: Mapping[str, Tensor], window: int, source: str | os.PathLike[str]) -> dict[str, Tensor]:
    """The state dict with every table of relative positions as one for `window`; see `resize_table`."""
    return {
        name: resize_table(tensor, window, source) if name.endswith(TABLE) else tensor for name, tensor in state.items()
    }


def resize_table(table_Ph: Tensor, window: int, source: str | os.PathLike[str] = "the weights") -> Tensor:
    """The table float32 [(2 * window - 1) ** 2, heads] of another window, as Swin's and LAVT's loaders make it.

    The table is an image of 2 * window - 1 squared positions a head and is resized bicubically, corners not aligned.
    One of the same window is returned as it is.
    """
    side = 2 * window_of_table(table_Ph.shape[0], source) - 1
    if side == 2 * window - 1:
        return table_Ph
    images = table_Ph.t().reshape(1, -1, side, side)
    resized = F.interpolate(images, size=(2 * window - 1, 2 * window - 1), mode="bicubic", align_corners=False)
    return resized.flatten(2)[0].t().contiguous()


def shape_of(
    tensors: Mapping[str, Tensor], name: str, num_axes: int, source: str | os.PathLike[str]
) -> tuple[int, ...]:
    """The shape of the tensor `name`; InputError where it is not there or has another number of axes."""
    if name not in tensors or tensors[name].ndim != num_axes or 0 in tensors[name].shape:
        found = list(tensors[name].shape) if name in tensors else "none"
        raise InputError(f"expected {name} with {num_axes} axes in {source}, found {found}: check the file")
    return tuple(tensors[name].shape)
