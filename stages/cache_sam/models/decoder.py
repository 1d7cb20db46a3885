"""The mask decoder of SAM and its successors for many prompts on one image, computing once what the prompts share.

The same function as segment_anything.modeling.MaskDecoder, to rounding, in fewer operations; SAM 2's is that one with a
token for the object's presence, features of higher resolution, and predicted IoU through a sigmoid, SAM-HQ's that one
with a mask more, which is added to the others (hq_masks.py).

The transformer is that of two_way.py. Masks are upscaled only for prompts with a predicted IoU worth it (`logits` is
asked for some masks alone) and only where the image is, not its padding, with the 2 x 2 transposed convolutions as
matrix products on channels-last tokens.

Axes: B prompts, T tokens a prompt, M masks a prompt, N image tokens, C channels.
"""

from dataclasses import dataclass

import torch
from segment_anything.modeling import MaskDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from semires.stages.cache_sam.models.hq_masks import HqMasks
from semires.stages.cache_sam.models.two_way import CPU_BYTES_AT_ONCE, ImageTokens, TokenToImage, TwoWayBlock


@dataclass(frozen=True, kw_only=True, eq=False)
class SharedTokens:
    """What all prompts on one image share.

    `embedding` float32 [N, C] is the image's own part of the tokens. `fine` and `finest` are what the two upscalings
    add: their biases, [C] and [C / 2]; or, where the image has features of twice and four times the resolution, these
    plus bias, [grid, grid, C] and [grid, grid, 4, C / 2], for each token the children in the order in which they come.
    `hq` [4 grid, 4 grid, C / 8] are SAM-HQ's features of the image; another model has none.
    """

    image: ImageTokens
    embedding: Tensor
    fine: Tensor
    finest: Tensor
    hq: Tensor | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Decoded:
    """The transformer's output for B prompts.

    `iou` float32 [B, M]: predicted IoU of each of a prompt's masks. `mask_tokens` float32 [B, M, C] and `image_tokens`
    [B, N, C] are what `PromptDecoder.logits` makes masks of. M is 3, or 4 with the one mask for a whole object first.
    SAM-HQ's are in falling order of `iou`, `order` int64 [B, M] says of which mask token each is; its own token is the
    last of `mask_tokens`, which then are M + 1.
    """

    iou: Tensor
    mask_tokens: Tensor
    image_tokens: Tensor
    order: Tensor | None = None


class PromptDecoder:
    """A mask decoder for batches of prompts; weights are rearranged here and must not change afterwards.

    `decoder` is segment-anything's module, with another model's weights where it is another model's. `position_CHW` is
    the positional encoding of its image tokens, `no_mask` [C] what stands where a prompt has no mask. `object_token`
    [1, C] is the token before all others, and `sigmoid` what its predicted IoU goes through: SAM 2 has both. `hq` is
    what SAM-HQ adds to each mask.

    Image tokens are kept in `dtype`, the few prompt tokens always in float32: they cost little, and predicted IoU
    comes from them alone.
    """

    def __init__(
        self,
        decoder: MaskDecoder,
        dtype: torch.dtype,
        *,
        position_CHW: Tensor,
        no_mask: Tensor,
        object_token: Tensor | None = None,
        sigmoid: bool = False,
        hq: HqMasks | None = None,
    ) -> None:
        self._decoder = decoder
        self._dtype = dtype
        self._sigmoid = sigmoid
        self._hq = hq
        channels, rows, columns = position_CHW.shape
        self.grid = (rows, columns)
        self.bytes_a_prompt = rows * columns * channels * dtype.itemsize
        layers = list(decoder.transformer.layers)
        self._blocks = [TwoWayBlock(layer, dtype) for layer in layers]
        self._final = TokenToImage(decoder.transformer.final_attn_token_to_image, dtype)
        with torch.no_grad():
            self._no_mask = no_mask.detach()
            self._position_NC = position_CHW.detach().flatten(1).T.contiguous()
            self._position_half = self._position_NC.to(dtype)
            first, norm, self._first_act, second, self._second_act = decoder.output_upscaling
            self._first_up, self._second_up = (_as_matrix(up.weight).to(dtype) for up in (first, second))
            self._first_bias, self._second_bias = (up.bias.detach().repeat(4) for up in (first, second))
            self._up_norm = [norm.weight.to(dtype), norm.bias.to(dtype), norm.eps]
            leading = [] if object_token is None else [object_token]
            trailing, layers_of_hq = ([], []) if hq is None else ([hq.token], [hq.layers])
            networks = [list(network.layers) for network in decoder.output_hypernetworks_mlps]
            self._networks = _stacked([*networks, *layers_of_hq])
            tokens = [*leading, decoder.iou_token.weight, decoder.mask_tokens.weight, *trailing]
            self.output_tokens = torch.cat(tokens).detach()
        # Of the output only the IoU token and the mask tokens are read, of these with several masks a prompt not the
        # first, which is for one.
        device, start, end = no_mask.device, len(leading), len(self.output_tokens)
        self._read = torch.tensor([start, *range(start + 2, end)], device=device)
        self._read_every = torch.arange(start, end, device=device)

    def share(
        self,
        embedding_CHW: Tensor,
        fine: Tensor | None = None,
        finest: Tensor | None = None,
        *,
        hq: Tensor | None = None,
    ) -> SharedTokens:
        """What all prompts on an image with this embedding share; in float32 until projected.

        `fine` [C / 4, 2 grid, 2 grid] and `finest` [C / 8, 4 grid, 4 grid]: its features of higher resolution. `hq`
        [C / 8, 4 grid, 4 grid]: those of `HqMasks.features`.
        """
        embedding = embedding_CHW.float().flatten(1).T
        tokens_NC = (embedding + self._no_mask).contiguous()
        return SharedTokens(
            image=self._blocks[0].share(tokens_NC, self._position_NC),
            embedding=embedding,
            fine=_offset(self._first_bias, fine, 1).to(self._dtype),
            finest=_offset(self._second_bias, finest, 2).to(self._dtype),
            hq=None if hq is None else hq.permute(1, 2, 0).to(self._dtype).contiguous(),
        )

    def attend_prompts(self, tokens_BTC: Tensor) -> Tensor:
        """The part of `decode` that sees no image, float32 [B, T, C]: worth keeping for prompts that are repeated."""
        return self._blocks[0].self_attended(tokens_BTC)

    def decode(self, shared: SharedTokens, tokens_BTC: Tensor, attended_BTC: Tensor) -> Decoded:
        """Run the two-way transformer and the IoU head for some prompts, three masks each.

        `tokens_BTC` float32 [B, T, C] are their tokens, `attended_BTC` what `attend_prompts` made of them.
        """
        queries, keys = self._blocks[0].first(shared.image, attended_BTC, tokens_BTC)
        return self._decode_on(queries, keys, tokens_BTC, self._read)

    def decode_masked(
        self, shared: SharedTokens, tokens_BTC: Tensor, attended_BTC: Tensor, masks_BNC: Tensor
    ) -> Decoded:
        """The same for prompts with a mask, `masks_BNC` what the prompt encoder made of it, and four masks each.

        The one for the whole object comes first, then the three of `decode`.
        """
        keys = (shared.embedding + masks_BNC).to(self._dtype)
        queries, keys = self._blocks[0].seen(attended_BTC, keys, tokens_BTC, self._position_half)
        return self._decode_on(queries, keys, tokens_BTC, self._read_every)

    def _decode_on(self, queries: Tensor, keys: Tensor, tokens_BTC: Tensor, read: Tensor) -> Decoded:
        """From the first layer's output to the end, for the tokens `read`: the IoU token, then those of masks."""
        transformer = self._decoder.transformer
        for block in self._blocks[1:]:
            queries, keys = block.later(queries, keys, tokens_BTC, self._position_half)
        placed_queries = (queries + tokens_BTC).index_select(1, read)
        queries = queries.index_select(1, read)
        attended = self._final(placed_queries, keys, self._position_half)
        queries = transformer.norm_final_attn(queries + attended)
        num_masks = len(read) - (1 if self._hq is None else 2)
        iou = self._decoder.iou_prediction_head(queries[:, 0])[:, -num_masks:]
        order = None
        if self._sigmoid:
            iou = iou.sigmoid()
        if self._hq is not None:
            iou, order = iou.sort(dim=1, descending=True)
        return Decoded(iou=iou, mask_tokens=queries[:, 1:], image_tokens=keys, order=order)

    @property
    def low_side(self) -> int:
        """Rows, and columns, of low-resolution logits when nothing is left out: 4 grid."""
        return 4 * self.grid[0]

    def logits(self, shared: SharedTokens, decoded: Decoded, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits of K masks, float32 [K, rows, columns] with at least `size` from the top left.

        `masks_K2` int64 [K, 2], on CPU: the prompt (into B) and which of its masks.
        """
        device = decoded.image_tokens.device
        margin = 0 if self._hq is None else self._hq.margin
        rows, columns = (min(side, -(-(some + margin) // 4)) for side, some in zip(self.grid, size, strict=True))
        needed, row = masks_K2[:, 0].unique(return_inverse=True)
        keys, mask_tokens = decoded.image_tokens.unflatten(1, self.grid), decoded.mask_tokens
        if len(needed) < len(keys):
            needed = needed.to(device, non_blocking=True)
            keys, mask_tokens = keys[needed, :rows, :columns], mask_tokens[needed]
        else:
            keys = keys[:, :rows, :columns]
        hidden_MSC = mask_tokens.transpose(0, 1)
        for index, (matrix, offset) in enumerate(self._networks):
            matrix, offset = matrix[-len(hidden_MSC) :], offset[-len(hidden_MSC) :]
            hidden_MSC = torch.baddbmm(offset, hidden_MSC.relu() if index else hidden_MSC, matrix)
        hidden_SMC = hidden_MSC.transpose(0, 1)
        read_SMC = hidden_SMC[:, : decoded.iou.shape[1]].to(self._dtype)
        at_once, bytes_a_row = rows, columns * keys.shape[-1] * keys.element_size()
        if device.type == "cpu" and self._hq is None and rows * bytes_a_row > 2 * CPU_BYTES_AT_ONCE:
            at_once = max(1, CPU_BYTES_AT_ONCE // (len(keys) * bytes_a_row))
        parts = []
        for start in range(0, rows, at_once):
            upscaled = self._upscale(shared, keys, start, at_once)
            parts.append(torch.bmm(read_SMC, upscaled.transpose(1, 2)))
        masks = parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)
        which = torch.stack([row, *masks_K2.unbind(1)]).to(device, non_blocking=True)
        mask = which[2] if decoded.order is None else decoded.order[which[1], which[2]]
        # Children of children are not in image order yet; masks are few, so this is where they are put there.
        masks = _in_image_order(masks[which[0], mask].float(), rows, columns)
        if self._hq is None:
            return masks
        assert shared.hq is not None, "SAM-HQ's image has features of its own"
        features = shared.hq[: 4 * rows, : 4 * columns]
        masks_hq = self._hq.logits(_in_image_order(upscaled, rows, columns), hidden_SMC[:, -1], features)
        return (masks + masks_hq[which[0]])[:, : size[0], : size[1]]

    def _upscale(self, shared: SharedTokens, keys_BRKC: Tensor, start: int, at_once: int) -> Tensor:
        """Some rows of a grid of image tokens, [B, rows, columns, C], to sixteen pixels each, [B, pixels, C / 8]."""
        some = slice(start, start + at_once)
        keys_BNC = keys_BRKC[:, some].flatten(1, 2)
        batch, _, columns, _ = keys_BRKC.shape
        weight, bias, eps = self._up_norm
        # [B, N, 2 x 2 children, C / 4], then [B, N x 4, 2 x 2 children, C / 8]
        fine = _affine(keys_BNC, self._first_up, _of_rows(shared.fine, some, columns)).view(batch, -1, len(weight))
        fine = self._first_act(F.layer_norm(fine, (len(weight),), weight, bias, eps))
        finest = self._second_act(_affine(fine, self._second_up, _of_rows(shared.finest, some, columns)))
        return finest.view(batch, -1, self._second_up.shape[1] // 4)


def _in_image_order(values: Tensor, rows: int, columns: int) -> Tensor:
    """Values of each token's children of children, [K, rows x columns x 16, ...], as [K, 4 rows, 4 columns, ...]."""
    values = values.view(len(values), rows, columns, 2, 2, 2, 2, *values.shape[2:]).permute(
        0, 1, 3, 5, 2, 4, 6, *range(7, values.ndim + 5)
    )
    return values.reshape(len(values), 4 * rows, 4 * columns, *values.shape[7:])


def _stacked(networks: list[list[nn.Module]]) -> list[tuple[Tensor, Tensor]]:
    """Several MLPs of one shape as one, layer by layer: matrices [n, in, out] and offsets [n, 1, out]."""
    return [
        (torch.stack([layer.weight.T for layer in layers]), torch.stack([layer.bias[None] for layer in layers]))
        for layers in zip(*networks, strict=True)
    ]


def _as_matrix(weight: Tensor) -> Tensor:
    """A 2 x 2, stride 2 transposed convolution's weight [in, out, 2, 2] as a matrix [in, 4 out]."""
    return weight.detach().permute(0, 2, 3, 1).reshape(len(weight), -1)


def _offset(bias: Tensor, features_CHW: Tensor | None, doublings: int) -> Tensor:
    """An upscaling's bias [4 C], of four children, plus features [C, 2^n rows, 2^n columns] if there are some.

    Then [rows, columns, 4 C], or [rows, columns, 4, 4 C] of children's children: below each token its children, theirs
    within.
    """
    if features_CHW is None:
        return bias
    channels, rows, columns = features_CHW.shape
    splits = [[side >> doublings, *[2] * doublings] for side in (rows, columns)]
    features = features_CHW.float().reshape(channels, *splits[0], *splits[1])
    axes = [axis for level in range(doublings + 1) for axis in (1 + level, 2 + doublings + level)]
    children = features.permute(*axes, 0).reshape(*(split[0] for split in splits), *[4] * (doublings - 1), -1)
    return children + bias


def _of_rows(offset: Tensor, rows: slice, columns: int) -> Tensor:
    """The part of an `_offset` that belongs to some rows and the first columns of the grid, [N, C]; a bias as it is."""
    return offset if offset.dim() == 1 else offset[rows, :columns].reshape(-1, offset.shape[-1])


def _affine(tokens_BNC: Tensor, matrix: Tensor, offset: Tensor) -> Tensor:
    """Each token times `matrix`, plus `offset`: one for all, [D], or for each of a prompt's tokens its own, [N, D]."""
    if offset.dim() == 1:
        return torch.addmm(offset, tokens_BNC.flatten(0, 1), matrix).unflatten(0, tokens_BNC.shape[:2])
    batch = len(tokens_BNC)
    return torch.baddbmm(offset.expand(batch, -1, -1), tokens_BNC, matrix.expand(batch, -1, -1))
