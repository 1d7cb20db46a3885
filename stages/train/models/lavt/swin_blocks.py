"""The forward passes of Swin's modules, written for speed and for maps of any size; the modules are transformers'.

Same arithmetic as theirs, in another order: positions are projected before the map is padded to whole windows, masks
are built once a size, and nothing branches on a size that torch.export keeps open.

Axes: B batch, N = H * W positions in row-major order, C channels, h heads, A = window * window positions of a window.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.models.lavt.per_size import once_per_size

# Added to the scores of positions that the shift brought together: e**-1e4 is exactly 0. Swin's -100 leaves 4e-44: the
# same result, but a CPU then computes with denormal numbers, 8 % of the attention's time.
MASKED_SCORE = -1e4

Size = tuple[int, int]


def embed_patches(embeddings: Any, images: Tensor) -> tuple[Tensor, Size]:
    """(tokens [B, N, C], size of their map) of images [B, 3, height, width], zero-padded to whole patches."""
    projection = embeddings.patch_embeddings.projection
    patch = projection.stride[0]
    maps = projection(_pad_to_multiples(images.permute(0, 2, 3, 1), patch).permute(0, 3, 1, 2))
    return embeddings.norm(maps.flatten(2).transpose(1, 2)), (maps.shape[2], maps.shape[3])


def merge_patches(merging: Any, tokens_BNC: Tensor, size: Size) -> tuple[Tensor, Size]:
    """(tokens [B, N', 2 C], size of their map): every 2 x 2 positions become one; odd sides are zero-padded."""
    rows, columns = _ceil_div(size[0], 2), _ceil_div(size[1], 2)
    maps = _pad_to_multiples(tokens_BNC.unflatten(1, size), 2)
    # Of the four positions the upper left comes first, then the lower left.
    quarters = maps.view(-1, rows, 2, columns, 2, maps.shape[3]).permute(0, 1, 3, 4, 2, 5).flatten(3).flatten(1, 2)
    return merging.reduction(merging.norm(quarters)), (rows, columns)


def swin_block(block: Any, tokens_BNC: Tensor, size: Size) -> Tensor:
    """A transformers SwinLayer's output [B, N, C] for the positions of a map of `size`.

    The path of the MLP is dropped like that of the attention, as in Swin; transformers drops that of the attention
    only.
    """
    attended = _window_attention(block, block.layernorm_before(tokens_BNC), size)
    tokens_BNC = tokens_BNC + block.drop_path(attended)
    return tokens_BNC + block.drop_path(block.mlp(block.layernorm_after(tokens_BNC)))


def _window_attention(block: Any, tokens_BNC: Tensor, size: Size) -> Tensor:
    """Multi-head self-attention within windows, shifted or not, [B, N, C] -> [B, N, C]."""
    attention, window, shift = block.attention, block.window_size, block.shift_size
    rows, columns = _ceil_div(size[0], window), _ceil_div(size[1], window)
    is_whole = not torch.compiler.is_exporting() and (rows * window, columns * window) == size
    maps = tokens_BNC.unflatten(1, size)
    if is_whole and shift:
        maps = maps.roll((-shift, -shift), (1, 2))

    def split(projection: Any) -> Tensor:
        """[B * rows * columns, h, A, C / h]: queries, keys or values."""
        if is_whole:
            projected = projection(maps)
        else:
            # Padding positions are zeros and their projection is the bias. Projecting before padding spares LAVT-base
            # at 480 a third of this work in stage 3 and three fifths in stage 4: 1.1 x as fast a block, at 224 1.4 x.
            projected = _pad_to_multiples(F.linear(maps, projection.weight), window)
            projected = projected + projection.bias.to(projected.dtype)
            projected = projected.roll((-shift, -shift), (1, 2)) if shift else projected
        windows = projected.view(-1, rows, window, columns, window, attention.num_attention_heads, attention.head_dim)
        return windows.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(0, 2)

    bias = _position_bias(attention.relative_position_bias)
    if shift:
        bias = bias + _shift_mask(rows, columns, window, shift, like=bias)
        bias = bias.repeat(tokens_BNC.shape[0], 1, 1, 1)
    attended = _attend(split(attention.q_proj), split(attention.k_proj), split(attention.v_proj), bias)
    maps = attended.unflatten(0, (-1, rows, columns)).unflatten(4, (window, window))
    maps = maps.permute(0, 1, 4, 2, 5, 3, 6).flatten(5).flatten(3, 4).flatten(1, 2)
    if shift:
        maps = maps.roll((shift, shift), (1, 2))
    return attention.o_proj(_crop(maps, size).flatten(1, 2))


def _attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """softmax(query @ key^T / sqrt(C) + bias) @ value, [n, h, A, C]; bias [1 or n, h, A, A]."""
    if query.device.type != "cpu" or not bias.requires_grad:
        return F.scaled_dot_product_attention(query, key, value, bias.to(query.dtype))
    # On the CPU scaled_dot_product_attention has no kernel for a bias that learns and falls back to slower steps than
    # these: a block of LAVT-base is 1.05 x as fast, of LAVT-nano 1.07 x, backward included.
    biases = bias.expand(query.shape[0], -1, -1, -1).flatten(0, 1)
    query, key, value_nAC = query.flatten(0, 1), key.flatten(0, 1), value.flatten(0, 1)
    scores = torch.baddbmm(biases, query, key.transpose(1, 2), alpha=query.shape[2] ** -0.5)
    return torch.bmm(scores.softmax(dim=-1), value_nAC).view_as(value)


def _position_bias(bias: Any) -> Tensor:
    """[1, h, A, A], from the learned table of relative positions."""
    # index_select along the table's columns: 4 x as fast as indexing its rows, backward included.
    table_hP = bias.relative_position_bias_table.t()
    area = bias.window_area
    return table_hP.index_select(1, bias.relative_position_index).view(1, -1, area, area)


@once_per_size
def _shift_mask(rows: int, columns: int, window: int, shift: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[rows * columns, 1, A, A]: MASKED_SCORE where the cyclic shift put two positions into one window, else 0."""
    # Along an axis only the last window holds two parts: its end came around from the map's beginning.
    windows = torch.arange(rows * columns, device=device)[:, None]
    positions = torch.arange(window * window, device=device)
    # Not by %: ONNX's export takes no remainder of a number that stays open.
    is_last_row = windows >= (rows - 1) * columns
    is_last_column = (windows + 1) // columns > windows // columns
    from_top = is_last_row & (positions // window >= window - shift)
    from_left = is_last_column & (positions % window >= window - shift)
    parts = 2 * from_top + from_left
    return torch.where(parts[:, None, :, None] != parts[:, None, None, :], MASKED_SCORE, 0.0).to(dtype)


def _ceil_div(side: int, multiple: int) -> int:
    """How many times `multiple` covers `side`."""
    return (side + multiple - 1) // multiple


def _pad_to_multiples(maps: Tensor, multiple: int) -> Tensor:
    """[B, H, W, C] with zeros below and to the right, so that `multiple` divides both sides."""
    height, width = maps.shape[1:3]
    below = _ceil_div(height, multiple) * multiple - height
    right = _ceil_div(width, multiple) * multiple - width
    # Sizes that torch.export keeps open must not decide a branch.
    if torch.compiler.is_exporting() or below or right:
        return F.pad(maps, (0, 0, 0, right, 0, below))
    return maps


def _crop(maps: Tensor, size: Size) -> Tensor:
    """The upper left `size` of [B, H, W, C]."""
    if torch.compiler.is_exporting():
        # Of a slice torch.export asks whether it is the whole, and fixes the answer.
        for axis, side in enumerate(size, start=1):
            maps = maps.index_select(axis, torch.arange(side, device=maps.device))
        return maps
    return maps[:, : size[0], : size[1]]
