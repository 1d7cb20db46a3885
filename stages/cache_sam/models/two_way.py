"""The two-way transformer of SAM's mask decoder, layer by layer, for many prompts on one image.

The same function as segment_anything.modeling.transformer, to rounding, in fewer operations:

- before the first layer every prompt has the same image tokens: their projections are made once an image;
- in later layers the projection of all N image tokens (4,096) is replaced by one of the few prompt tokens. A score is
  q . (W x) = (W^T q) . x, an output W (sum_n a_n x_n), and T = 7 tokens in 8 heads are 56 vectors a prompt;
- on CPU, where the prompts' image tokens do not fit a core's cache, some at a time go through all that is done to them.

Axes: B prompts, T tokens a prompt, N image tokens, C channels, h heads, D channels a head.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

# Bytes of image tokens in work at once on CPU.
CPU_BYTES_AT_ONCE = 2**19


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageTokens:
    """One image's tokens [N, C] as all prompts meet them, and the first layer's projections of them, each [h, N, D]."""

    tokens_NC: Tensor
    query: Tensor
    key: Tensor
    value: Tensor


class TokenToImage:
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

    def __call__(self, queries_BTC: Tensor, keys_BNC: Tensor, position_NC: Tensor) -> Tensor:
        """What tokens [B, T, C] see of each prompt's own image tokens, `keys_BNC`."""
        batch, num_tokens, channels = queries_BTC.shape
        asked = F.linear(queries_BTC, *self._ask).view(batch, -1, channels).to(self._dtype)

        def score(some: slice, tokens: slice) -> Tensor:
            return torch.bmm(asked[some], (keys_BNC[some, tokens] + position_NC[tokens]).transpose(1, 2))

        attention = _in_cache(score, keys_BNC, dim=2).softmax(dim=-1)
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


class TwoWayBlock:
    """One two-way block: tokens to themselves, tokens to image, MLP, image to tokens."""

    def __init__(self, layer: TwoWayAttentionBlock, dtype: torch.dtype) -> None:
        self._layer = layer
        self._dtype = dtype
        self.to_image = TokenToImage(layer.cross_attn_token_to_image, dtype)
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

    def share(self, tokens_NC: Tensor, position_NC: Tensor) -> ImageTokens:
        """An image's tokens for `first`, projected in float32 and kept in `dtype`."""
        placed = tokens_NC + position_NC
        return ImageTokens(
            tokens_NC=tokens_NC.to(self._dtype),
            query=_heads(self.from_image.q_proj(placed), self.num_heads).to(self._dtype),
            key=_heads(self.to_image.module.k_proj(placed), self.num_heads).to(self._dtype),
            value=_heads(self.to_image.module.v_proj(tokens_NC), self.num_heads).to(self._dtype),
        )

    def self_attended(self, tokens_BTC: Tensor) -> Tensor:
        """The first layer up to its first norm, which depends on the prompts alone."""
        attended: Tensor = self._layer.norm1(self._layer.self_attn(q=tokens_BTC, k=tokens_BTC, v=tokens_BTC))
        return attended

    def first(self, image: ImageTokens, queries: Tensor, tokens_BTC: Tensor) -> tuple[Tensor, Tensor]:
        """The first layer from `self_attended` on: all prompts have the same image tokens."""
        layer = self._layer
        attended = self.to_image.shared(queries + tokens_BTC, image.key, image.value)
        queries = layer.norm2(queries + attended)
        queries = layer.norm3(queries + layer.mlp(queries))
        batch, num_tokens, _ = tokens_BTC.shape
        key = (self.from_image.k_proj(queries + tokens_BTC) * _scale_of(self.from_image)).flatten(0, 1)
        scores_hsN = torch.bmm(_heads(key, self.num_heads).to(self._dtype), image.query.transpose(1, 2))
        scores_BThN = scores_hsN.unflatten(1, (batch, num_tokens)).permute(1, 2, 0, 3)
        keys_BNC, told = image.tokens_NC.expand(batch, -1, -1), self._told(queries)

        def update(some: slice, tokens: slice) -> Tensor:
            return self._update(keys_BNC[some, tokens], scores_BThN[some, ..., tokens], told[some])

        return queries, _in_cache(update, keys_BNC)

    def later(
        self, queries: Tensor, keys_BNC: Tensor, tokens_BTC: Tensor, position_NC: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Any other layer: each prompt has image tokens of its own, which may be overwritten."""
        query = queries + tokens_BTC
        queries = self._layer.norm1(queries + self._layer.self_attn(q=query, k=query, v=queries))
        return self.seen(queries, keys_BNC, tokens_BTC, position_NC)

    def seen(self, queries: Tensor, keys_BNC: Tensor, tokens_BTC: Tensor, position_NC: Tensor) -> tuple[Tensor, Tensor]:
        """A layer from its self-attention on; each prompt has image tokens of its own, which may be overwritten."""
        layer = self._layer
        batch, num_tokens, channels = tokens_BTC.shape
        queries = layer.norm2(queries + self.to_image(queries + tokens_BTC, keys_BNC, position_NC))
        queries = layer.norm3(queries + layer.mlp(queries))
        query = queries + tokens_BTC
        asked = F.linear(query, *self._ask).view(batch, -1, channels).to(self._dtype)
        offset = F.linear(query, *self._ask_offset).view(batch, -1, 1).to(self._dtype)
        told = self._told(queries)

        def update(some: slice, tokens: slice) -> Tensor:
            keys = keys_BNC[some, tokens]
            scores = torch.baddbmm(offset[some], asked[some], (keys + position_NC[tokens]).transpose(1, 2))
            return self._update(keys, scores.unflatten(1, (num_tokens, self.num_heads)), told[some], in_place=True)

        return queries, _in_cache(update, keys_BNC, into=keys_BNC)

    def _told(self, queries: Tensor) -> Tensor:
        """What the tokens tell the image, by token and head: [B, T h, C]."""
        return F.linear(queries, *self._tell).view(len(queries), -1, queries.shape[-1]).to(self._dtype)

    def _update(self, keys_BNC: Tensor, scores_BThN: Tensor, told: Tensor, *, in_place: bool = False) -> Tensor:
        attention_BNt = scores_BThN.softmax(dim=1).flatten(1, 2).transpose(1, 2)
        add = keys_BNC.baddbmm_ if in_place else keys_BNC.baddbmm
        return F.layer_norm(add(attention_BNt, told), *self._norm)


def _in_cache(
    compute: Callable[[slice, slice], Tensor], keys_BNC: Tensor, *, dim: int = 1, into: Tensor | None = None
) -> Tensor:
    """What `compute` makes of some prompts' and some image tokens, for all of both; `dim` of it is that of the latter.

    In one call, but on CPU where they are many: there for as many as fit `CPU_BYTES_AT_ONCE`, of several prompts or of
    a part of one. `into` is where the parts then go: memory that is in the cache already, or else new.
    """
    batch, num_tokens, channels = keys_BNC.shape
    at_once = CPU_BYTES_AT_ONCE // (channels * keys_BNC.element_size())
    if keys_BNC.device.type != "cpu" or batch * num_tokens <= 2 * at_once or torch.compiler.is_compiling():
        return compute(slice(None), slice(None))
    whole = into
    num_prompts = -(-batch // -(-batch // max(1, at_once // num_tokens)))  # as many in each part
    for first in range(0, batch, num_prompts):
        for start in range(0, num_tokens, at_once):
            part = compute(slice(first, first + num_prompts), slice(start, start + at_once))
            if whole is None:
                shape = [batch, *part.shape[1:]]
                shape[dim] = num_tokens
                whole = part.new_empty(shape)
            whole[first : first + num_prompts].narrow(dim, start, part.shape[dim]).copy_(part)
    assert whole is not None
    return whole


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
    """Projected tokens [N, h D] by head, [h, N, D]."""
    return tokens_NC.unflatten(-1, (num_heads, -1)).transpose(0, 1).contiguous()


def _per_head(weight: Tensor, num_heads: int) -> Tensor:
    """A projection's weight [h D, C] as [h, D, C], in float64."""
    return weight.detach().double().reshape(num_heads, -1, weight.shape[1])
