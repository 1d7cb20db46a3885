"""SAM's image encoder on whole batches, without the attention of all tokens to all tokens standing in memory.

A ViT of segment-anything adds to every attention score a bias for the vertical and one for the horizontal distance.
Its own code writes the scores, then scores plus one bias, plus the other, then their softmax: four times 4,096 x 4,096
a head. Here:

- many tokens in float32 on CPU: SAM's operations on some rows of queries of one head at a time, so that they stay in
  the cache. Nothing is reordered; ViT-B's global layers take 0.28 of the time (one thread, one image);
- few tokens on CPU (windows, small SAMs): scaled_dot_product_attention with the bias as its mask;
- on CUDA, and below float32 with many tokens: scaled_dot_product_attention with the bias inside the product: a query
  carries its biases for all rows and all columns behind its channels, a key the one-hot codes of its row and column.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention, Block, get_rel_pos, window_partition, window_unpartition
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

# Below this number of tokens the scores of all heads fit the cache together.
_MANY_TOKENS = 1024
_BYTES_OF_SCORES = 2**21
_LANES = 8  # attention kernels want channels in multiples of this

# A block's relative positions as queries are multiplied with them; see `bias_tables`.
Tables: TypeAlias = tuple[Tensor, Tensor]


class ImageEncoder:
    """Images to embeddings, in float32 or under autocast to `dtype`; weights are read here and must not change.

    `compiled` says that `encode` will be handed to torch.compile.
    """

    def __init__(self, sam: Sam, dtype: torch.dtype, *, compiled: bool = False) -> None:
        self._sam = sam
        self._dtype = dtype
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._many = attention_in_rows if dtype == torch.float32 and sam.device.type == "cpu" else attention_augmented
        self._few = attention_masked if sam.device.type == "cpu" else attention_augmented
        grid = sam.image_encoder.img_size // sam.image_encoder.patch_embed.proj.stride[0]
        if compiled and grid**2 >= _MANY_TOKENS and self._many is attention_in_rows:
            # Its Python loops would be unrolled into thousands of operations.
            self._many = torch.compiler.disable(attention_in_rows)
        with torch.no_grad():
            # A window size of 0 is attention over the whole grid.
            sides = [block.window_size or grid for block in sam.image_encoder.blocks]
            self._biases = [
                bias_tables(block.attn, side, side, dtype)
                for block, side in zip(sam.image_encoder.blocks, sides, strict=True)
            ]

    def load(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """RGB images uint8 [H, W, 3] of any sizes, resized, normalized and padded: float32 [I, 3, S, S]."""
        return torch.stack([self._load(image) for image in images])

    def encode(self, pixels: Tensor) -> Tensor:
        """Embeddings [I, C, grid, grid] of what `load` returned."""
        return self.encode_both(pixels)[0]

    def encode_both(self, pixels: Tensor) -> tuple[Tensor, Tensor | None]:
        """Embeddings, and what the first block of global attention returned, [I, grid, grid, D]; None without one."""
        encoder = self._sam.image_encoder
        early = None
        with torch.autocast(pixels.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            tokens = encoder.patch_embed(pixels)
            if encoder.pos_embed is not None:
                tokens = tokens + encoder.pos_embed
            for block, tables in zip(encoder.blocks, self._biases, strict=True):
                tokens = self._block(block, tables, tokens)
                if early is None and block.window_size == 0:
                    early = tokens
            embedding: Tensor = encoder.neck(tokens.permute(0, 3, 1, 2))
        return embedding, early

    def _load(self, image: NDArray[np.uint8]) -> Tensor:
        resized = self._resize.apply_image(image)
        pixels: Tensor = self._sam.preprocess(torch.as_tensor(resized, device=self._sam.device).permute(2, 0, 1))
        return pixels

    def _block(self, block: Block, tables: Tables | None, tokens: Tensor) -> Tensor:
        normed = block.norm1(tokens)
        size = normed.shape[1:3]
        if block.window_size > 0:
            normed, padded_size = window_partition(normed, block.window_size)
        many = normed.shape[1] * normed.shape[2] >= _MANY_TOKENS
        attended = (self._many if many else self._few)(block.attn, tables, normed)
        if block.window_size > 0:
            attended = window_unpartition(attended, block.window_size, padded_size, size)
        tokens = tokens + attended
        mixed: Tensor = tokens + block.mlp(block.norm2(tokens))
        return mixed


def bias_tables(attention: Attention, height: int, width: int, dtype: torch.dtype) -> Tables | None:
    """What a query is multiplied with for its bias by row, [H, H, D], and by column, [W, W, D]; None without biases."""
    if not attention.use_rel_pos:
        return None
    by_row = get_rel_pos(height, height, attention.rel_pos_h)
    return by_row.to(dtype), get_rel_pos(width, width, attention.rel_pos_w).to(dtype)


def attention_in_rows(attention: Attention, tables: Tables | None, tokens_BHWC: Tensor) -> Tensor:
    """SAM's attention, [B, H, W, C] to the same, with its own operations on a block of rows of one head at a time."""
    batch, height, width, _ = tokens_BHWC.shape
    query, key, value = _project(attention, tokens_BHWC)
    seen = torch.empty_like(query)
    num_rows = max(1, _BYTES_OF_SCORES // (4 * width * height * width))
    for image in range(batch):
        for head in range(attention.num_heads):
            rows_HWD = query[image, head].view(height, width, -1)
            key_DN = key[image, head].transpose(0, 1)
            for start in range(0, height, num_rows):
                rows = rows_HWD[start : start + num_rows]
                scores = ((rows * attention.scale).flatten(0, 1) @ key_DN).view(-1, width, height, width)
                if tables is not None:
                    by_row, by_column = tables
                    scores += torch.einsum("hwc,hkc->hwk", rows, by_row[start : start + num_rows])[..., None]
                    scores += torch.einsum("hwc,wkc->hwk", rows, by_column)[:, :, None, :]
                weights = scores.view(len(rows) * width, -1).softmax(dim=-1)
                seen[image, head, start * width : (start + len(rows)) * width] = weights @ value[image, head]
    return _join(attention, seen, tokens_BHWC)


def attention_masked(attention: Attention, tables: Tables | None, tokens_BHWC: Tensor) -> Tensor:
    """SAM's attention, [B, H, W, C] to the same, with its biases as the mask of scaled_dot_product_attention."""
    height, width = tokens_BHWC.shape[1:3]
    query, key, value = _project(attention, tokens_BHWC)
    mask = None
    if tables is not None:
        biases = _biases(tables, query, height, width)
        by_row, by_column = (bias.unflatten(2, (height, width)) for bias in biases)
        mask = (by_row[..., :, None] + by_column[..., None, :]).flatten(4).flatten(2, 3)
    seen = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=attention.scale)
    return _join(attention, seen, tokens_BHWC)


def attention_augmented(attention: Attention, tables: Tables | None, tokens_BHWC: Tensor) -> Tensor:
    """SAM's attention, [B, H, W, C] to the same; neither scores nor biases ever stand in memory as a whole."""
    batch, height, width, _ = tokens_BHWC.shape
    query, key, value = _project(attention, tokens_BHWC)
    channels = query.shape[-1]
    asked, known = [query * attention.scale], [key]
    if tables is not None:
        rows = torch.eye(height, dtype=query.dtype, device=query.device).repeat_interleave(width, dim=0)
        columns = torch.eye(width, dtype=query.dtype, device=query.device).repeat(height, 1)
        asked.extend(_biases(tables, query, height, width))
        known.extend(code.expand(batch, attention.num_heads, -1, -1) for code in (rows, columns))
    num_channels = sum(part.shape[-1] for part in asked)
    padding = -num_channels % _LANES
    seen = F.scaled_dot_product_attention(
        F.pad(torch.cat(asked, dim=-1), (0, padding)),
        F.pad(torch.cat(known, dim=-1), (0, padding)),
        F.pad(value, (0, num_channels + padding - channels)),
        scale=1.0,
    )
    return _join(attention, seen[..., :channels], tokens_BHWC)


def _project(attention: Attention, tokens_BHWC: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query, key and value, each [B, heads, H W, D]."""
    batch, height, width, _ = tokens_BHWC.shape
    projected = attention.qkv(tokens_BHWC).reshape(batch, height * width, 3, attention.num_heads, -1)
    query, key, value = projected.permute(2, 0, 3, 1, 4).contiguous().unbind(0)
    return query, key, value


def _biases(tables: Tables, query_BhND: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Every query's biases for all rows, [B, heads, N, H], and for all columns, [B, heads, N, W]."""
    by_row, by_column = tables
    grid = query_BhND.unflatten(2, (height, width))
    return (
        torch.einsum("bnhwc,hkc->bnhwk", grid, by_row).flatten(2, 3),
        torch.einsum("bnhwc,wkc->bnhwk", grid, by_column).flatten(2, 3),
    )


def _join(attention: Attention, seen_BhND: Tensor, tokens_BHWC: Tensor) -> Tensor:
    batch, height, width, _ = tokens_BHWC.shape
    joined: Tensor = attention.proj(seen_BhND.transpose(1, 2).reshape(batch, height, width, -1))
    return joined
