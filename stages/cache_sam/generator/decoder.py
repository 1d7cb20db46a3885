"""SAM's mask decoder for many point prompts on one image, computing once what the prompts share.

The same function as segment_anything.modeling.MaskDecoder, to rounding, in fewer operations:

- before the first layer every prompt has the same image tokens: their projections are made once an image;
- in later layers the projection of all N image tokens (4,096) is replaced by one of the few prompt tokens. A score is
  q . (W x) = (W^T q) . x, an output W (sum_n a_n x_n), and T = 7 tokens in 8 heads are 56 vectors a prompt;
- masks are upscaled only for prompts with a predicted IoU worth it (`logits` is asked for some masks alone) and only
  where the image is, not its padding, with the 2 x 2 transposed convolutions as matrix products on channels-last
  tokens.

Axes: B prompts, T tokens a prompt, N image tokens, C channels, h heads, D channels a head.
"""

from dataclasses import dataclass

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedTokens:
    """What all prompts on one image share: its tokens [N, C] and the first layer's projections of them [h, N, D]."""

    tokens_NC: Tensor
    first_query: Tensor
    first_key: Tensor
    first_value: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The transformer's output for B prompts.

    `iou` float32 [B, 3]: predicted IoU of each of a prompt's masks. `mask_tokens` float32 [B, 3, C] and `image_tokens`
    [B, N, C] are what `PromptDecoder.logits` makes masks of.
    """

    iou: Tensor
    mask_tokens: Tensor
    image_tokens: Tensor


class PromptDecoder:
    """`sam.mask_decoder` for batches of prompts; weights are rearranged here and must not change afterwards.

    Image tokens are kept in `dtype`, the few prompt tokens always in float32: they cost little, and predicted IoU
    comes from them alone.
    """

    def __init__(self, sam: Sam, dtype: torch.dtype) -> None:
        decoder = sam.mask_decoder
        self._decoder = decoder
        self._dtype = dtype
        self._grid: tuple[int, int] = tuple(sam.prompt_encoder.image_embedding_size)
        layers = list(decoder.transformer.layers)
        self._blocks = [_Block(layer, dtype) for layer in layers]
        self._final = _TokenToImage(decoder.transformer.final_attn_token_to_image, dtype)
        with torch.no_grad():
            self._no_mask = sam.prompt_encoder.no_mask_embed.weight.detach()
            self._position_NC = sam.prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
            self._position_half = self._position_NC.to(dtype)
            first, norm, self._first_act, second, self._second_act = decoder.output_upscaling
            self._first_up = [_as_matrix(first.weight).to(dtype), first.bias.repeat(4).to(dtype)]
            self._second_up = [_as_matrix(second.weight).to(dtype), second.bias.repeat(4).to(dtype)]
            self._up_norm = [norm.weight.to(dtype), norm.bias.to(dtype), norm.eps]
            self._networks = _stacked([network.layers for network in list(decoder.output_hypernetworks_mlps)[1:]])
        # Of the output only the IoU token and the three mask tokens of multimask output are read.
        self._read = torch.tensor([0, *range(2, 1 + decoder.num_mask_tokens)], device=sam.device)

    def share(self, embedding: Tensor) -> SharedTokens:
        """What all prompts on an image with this embedding, [C, grid, grid], share; in float32 until projected."""
        tokens_NC = (embedding.float().flatten(1).T + self._no_mask).contiguous()
        placed = tokens_NC + self._position_NC
        block = self._blocks[0]
        return SharedTokens(
            tokens_NC=tokens_NC.to(self._dtype),
            first_query=_heads(block.from_image.q_proj(placed), block.num_heads).to(self._dtype),
            first_key=_heads(block.to_image.module.k_proj(placed), block.num_heads).to(self._dtype),
            first_value=_heads(block.to_image.module.v_proj(tokens_NC), block.num_heads).to(self._dtype),
        )

    def attend_prompts(self, tokens_BTC: Tensor) -> Tensor:
        """The part of `decode` that sees no image, float32 [B, T, C]: worth keeping for prompts that are repeated."""
        return self._blocks[0].self_attended(tokens_BTC)

    def decode(self, shared: SharedTokens, tokens_BTC: Tensor, attended_BTC: Tensor) -> Decoded:
        """Run the two-way transformer and the IoU head for some prompts.

        `tokens_BTC` float32 [B, T, C] are their tokens, `attended_BTC` what `attend_prompts` made of them.
        """
        transformer = self._decoder.transformer
        queries, keys = self._blocks[0].first(shared, attended_BTC, tokens_BTC)
        for block in self._blocks[1:]:
            queries, keys = block.later(queries, keys, tokens_BTC, self._position_half)
        placed_queries = (queries + tokens_BTC).index_select(1, self._read)
        queries = queries.index_select(1, self._read)
        attended = self._final(placed_queries, keys + self._position_half, keys)
        queries = transformer.norm_final_attn(queries + attended)
        iou = self._decoder.iou_prediction_head(queries[:, 0])[:, 1:]
        return Decoded(iou=iou, mask_tokens=queries[:, 1:], image_tokens=keys)

    @property
    def low_side(self) -> int:
        """Rows, and columns, of low-resolution logits when nothing is left out: 4 grid."""
        return 4 * self._grid[0]

    def logits(self, decoded: Decoded, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits of K masks, float32 [K, rows, columns] with at least `size` from the top left.

        `masks_K2` int64 [K, 2], on CPU: the prompt (into B) and which of its three masks.
        """
        device = decoded.image_tokens.device
        rows, columns = (min(side, -(-some // 4)) for side, some in zip(self._grid, size, strict=True))
        needed, row = masks_K2[:, 0].unique(return_inverse=True)
        keys, mask_tokens = decoded.image_tokens.unflatten(1, self._grid), decoded.mask_tokens
        if len(needed) < len(keys):
            needed = needed.to(device, non_blocking=True)
            keys, mask_tokens = keys[needed, :rows, :columns], mask_tokens[needed]
        else:
            keys = keys[:, :rows, :columns]
        count = len(keys)
        weight, bias, eps = self._up_norm
        # [S, N, 2 x 2 children, C / 4], then [S, N x 4, 2 x 2 children, C / 8]
        fine = _affine(keys, *self._first_up).view(count, -1, len(weight))
        fine = self._first_act(F.layer_norm(fine, (len(weight),), weight, bias, eps))
        finest = self._second_act(_affine(fine, *self._second_up)).view(count, rows * columns * 16, -1)
        hidden_3SC = mask_tokens.transpose(0, 1)
        for index, (matrix, offset) in enumerate(self._networks):
            hidden_3SC = torch.baddbmm(offset, hidden_3SC.relu() if index else hidden_3SC, matrix)
        masks = torch.bmm(hidden_3SC.transpose(0, 1).to(self._dtype), finest.transpose(1, 2))
        which = torch.stack([row, masks_K2[:, 1]]).to(device, non_blocking=True)
        masks = masks[which[0], which[1]].float()
        # Children of children are not in image order yet; masks are few, so this is where they are put there.
        masks = masks.view(-1, rows, columns, 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        return masks.reshape(-1, 4 * rows, 4 * columns)


class _TokenToImage:
    """Attention of prompt tokens to image tokens, the latter never projected.

    Both projections on either side of the image tokens are one matrix, C to h C: the rows of scores are then (token,
    head), in the order in which the product comes out, and nothing is transposed.
    """

    def __init__(self, module: Attention, dtype: torch.dtype) -> None:
        self.module = module
        self._dtype = dtype
        # The key projection's bias adds the same to all scores of a token: softmax takes it out again.
        self._ask = _chained(module.q_proj, _per_head(module.k_proj.weight, module.num_heads), _scale_of(module))
        out_hCD = _per_head(module.out_proj.weight.T, module.num_heads).transpose(1, 2)
        value_hDC = _per_head(module.v_proj.weight, module.num_heads)
        # From the weighted image tokens of all heads, [h C], to the output.
        weight = (out_hCD @ value_hDC).transpose(0, 1).flatten(1)
        bias = module.out_proj.weight.double() @ module.v_proj.bias.double() + module.out_proj.bias
        self._answer = (weight.float(), bias.detach().float())

    def __call__(self, queries_BTC: Tensor, placed_BNC: Tensor, keys_BNC: Tensor) -> Tensor:
        batch, num_tokens, channels = queries_BTC.shape
        asked = F.linear(queries_BTC, *self._ask).view(batch, -1, channels).to(self._dtype)
        attention = torch.bmm(asked, placed_BNC.transpose(1, 2)).softmax(dim=-1)
        seen = torch.bmm(attention, keys_BNC).float().view(batch, num_tokens, -1)
        return F.linear(seen, *self._answer)

    def shared(self, queries_BTC: Tensor, key_hND: Tensor, value_hND: Tensor) -> Tensor:
        """The same where all prompts see one image's projections."""
        batch, num_tokens, _ = queries_BTC.shape
        num_heads = self.module.num_heads
        query = (self.module.q_proj(queries_BTC) * _scale_of(self.module)).flatten(0, 1)
        query = _heads(query, num_heads).to(self._dtype)
        attention = torch.bmm(query, key_hND.transpose(1, 2)).softmax(dim=-1)
        value = torch.bmm(attention, value_hND).float().transpose(0, 1).reshape(batch, num_tokens, -1)
        return self.module.out_proj(value)


class _Block:
    """One two-way block: tokens to themselves, tokens to image, MLP, image to tokens."""

    def __init__(self, layer: TwoWayAttentionBlock, dtype: torch.dtype) -> None:
        self._layer = layer
        self._dtype = dtype
        self.to_image = _TokenToImage(layer.cross_attn_token_to_image, dtype)
        self.from_image = module = layer.cross_attn_image_to_token
        self.num_heads: int = module.num_heads
        query_hDC = _per_head(module.q_proj.weight, self.num_heads)
        query_bias_hD1 = module.q_proj.bias.detach().double().view(self.num_heads, -1, 1)
        out_hDC = _per_head(module.out_proj.weight.T, self.num_heads)
        self._ask = _chained(module.k_proj, query_hDC, _scale_of(module))
        self._ask_offset = _chained(module.k_proj, query_bias_hD1, _scale_of(module))
        weight, bias = _chained(module.v_proj, out_hDC, 1.0)
        # A head's weights sum to one over the tokens, so each head may carry its share of the output's bias.
        share = module.out_proj.bias.detach().repeat(self.num_heads) / self.num_heads
        self._tell = (weight, bias + share)
        norm = layer.norm4
        self._norm = (norm.normalized_shape, norm.weight.detach().to(dtype), norm.bias.detach().to(dtype), norm.eps)

    def self_attended(self, tokens_BTC: Tensor) -> Tensor:
        """The first layer up to its first norm, which depends on the prompts alone."""
        attended: Tensor = self._layer.norm1(self._layer.self_attn(q=tokens_BTC, k=tokens_BTC, v=tokens_BTC))
        return attended

    def first(self, shared: SharedTokens, queries: Tensor, tokens_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer from `self_attended` on: all prompts have the same image tokens."""
        layer = self._layer
        attended = self.to_image.shared(queries + tokens_BTC, shared.first_key, shared.first_value)
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        batch, num_tokens, _ = tokens_BTC.shape
        key = (self.from_image.k_proj(queries + tokens_BTC) * _scale_of(self.from_image)).flatten(0, 1)
        scores_hsN = torch.bmm(_heads(key, self.num_heads).to(self._dtype), shared.first_query.transpose(1, 2))
        scores_BThN = scores_hsN.unflatten(1, (batch, num_tokens)).permute(1, 2, 0, 3)
        return queries, self._update(shared.tokens_NC.expand(batch, -1, -1), scores_BThN, queries)

    def later(
        self, queries: Tensor, keys_BNC: Tensor, tokens_BTC: Tensor, position_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Any other layer: each prompt has image tokens of its own."""
        layer = self._layer
        batch, num_tokens, channels = tokens_BTC.shape
        placed = keys_BNC + position_NC
        query = queries + tokens_BTC
        queries = layer.norm1(queries + layer.self_attn(q=query, k=query, v=queries))
        queries = layer.norm2(queries + self.to_image(queries + tokens_BTC, placed, keys_BNC))
        queries = layer.norm3(queries + layer.mlp(queries))
        query = queries + tokens_BTC
        asked = F.linear(query, *self._ask).view(batch, -1, channels).to(self._dtype)
        offset = F.linear(query, *self._ask_offset).view(batch, -1, 1).to(self._dtype)
        scores = torch.baddbmm(offset, asked, placed.transpose(1, 2))
        return queries, self._update(keys_BNC, scores.view(batch, num_tokens, self.num_heads, -1), queries)

    def _update(self, keys_BNC: Tensor, scores_BThN: Tensor, queries: Tensor) -> Tensor:
        attention = scores_BThN.softmax(dim=1).flatten(1, 2)
        told = F.linear(queries, *self._tell).view(len(queries), -1, keys_BNC.shape[-1]).to(self._dtype)
        return F.layer_norm(torch.baddbmm(keys_BNC, attention.transpose(1, 2), told), *self._norm)


def _scale_of(attention: Attention) -> float:
    """The 1 / sqrt(D) that attention scores are multiplied with."""
    return float((attention.internal_dim // attention.num_heads) ** -0.5)


def _chained(inner: nn.Linear, outer_hDX: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Weight [h X, C] and bias [h X] of `inner` (C to h D), then per head a product with `outer_hDX`, then `scale`.

    Multiplied in float64, so that one rounding remains.
    """
    num_heads = len(outer_hDX)
    inner_hDC = _per_head(inner.weight, num_heads)
    bias_hD1 = inner.bias.detach().double().view(num_heads, -1, 1)
    weight, bias = (scale * outer_hDX.transpose(1, 2) @ part for part in (inner_hDC, bias_hD1))
    return weight.flatten(0, 1).float(), bias.flatten().float()


def _heads(tokens_NC: Tensor, num_heads: int) -> Tensor:
    return tokens_NC.unflatten(-1, (num_heads, -1)).transpose(0, 1).contiguous()


def _per_head(weight: Tensor, num_heads: int) -> Tensor:
    """A projection's weight [h D, C] as [h, D, C], in float64."""
    return weight.detach().double().reshape(num_heads, -1, weight.shape[1])


def _stacked(networks: list[nn.ModuleList]) -> list[tuple[Tensor, Tensor]]:
    """Several MLPs of one shape as one, layer by layer: matrices [n, in, out] and offsets [n, 1, out]."""
    return [
        (torch.stack([layer.weight.T for layer in layers]), torch.stack([layer.bias[None] for layer in layers]))
        for layers in zip(*networks, strict=True)
    ]


def _as_matrix(weight: Tensor) -> Tensor:
    """A 2 x 2, stride 2 transposed convolution's weight [in, out, 2, 2] as a matrix [in, 4 out]."""
    return weight.detach().permute(0, 2, 3, 1).reshape(len(weight), -1)


def _affine(tokens: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, tokens.reshape(-1, tokens.shape[-1]), weight)
