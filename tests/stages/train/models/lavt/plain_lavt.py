"""LAVT's arithmetic written out plainly from the papers' formulas, to hold the fast one to.

Liu et al., ICCV 2021 (windows, shift, relative positions, patch merging) and Yang et al., CVPR 2022 (pixel-word
attention, language gate, decoder). Window by window and head by head, with nothing of the network but its weights; the
words come from transformers' BERT. No dropout and no drop path.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.models.lavt import Lavt

Weights = dict[str, Tensor]


def plain_lavt(lavt: Lavt, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
    """Logits [B, 2, H, W] of `lavt`'s weights in the mode that it is in; its running statistics stay as they are."""
    config, weights = lavt.config, dict(lavt.state_dict())
    words = lavt.text.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    maps = embed(weights, images, config.swin_patch)
    features = []
    for stage, depth in enumerate(config.swin_depths):
        layer = f"visual.layers.{stage}."
        for block in range(depth):
            shift = config.swin_window // 2 if block % 2 else 0
            maps = swin_block(
                weights, f"{layer}blocks.{block}.", maps, config.swin_heads[stage], config.swin_window, shift
            )
        fused = fuse(weights, f"fusion.{stage}.fusion.", maps, words, attention_mask, config.fusion_heads[stage])
        features.append(layer_norm(weights, f"fusion.{stage}.norm", fused).permute(0, 3, 1, 2))
        if stage < 3:
            gate = linear(
                weights, f"fusion.{stage}.gate.gate.2", linear(weights, f"fusion.{stage}.gate.gate.0", fused).relu()
            )
            maps = merge(weights, f"{layer}downsample.", maps + gate.tanh() * fused)
    return resize(decode(weights, features, training=lavt.training), images.shape[-2:])


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    y = x @ weights[f"{name}.weight"].T
    return y + weights[f"{name}.bias"] if f"{name}.bias" in weights else y


def layer_norm(weights: Weights, name: str, x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt() * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def resize(x: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(x, size=size, mode="bilinear", align_corners=True)


def embed(weights: Weights, images: Tensor, patch: int) -> Tensor:
    """Patches of [B, 3, H, W] as a map [B, H / patch, W / patch, C]."""
    height, width = images.shape[-2:]
    images = F.pad(images, (0, -width % patch, 0, -height % patch))
    projection = "visual.embeddings.patch_embeddings.projection"
    maps = F.conv2d(images, weights[f"{projection}.weight"], weights[f"{projection}.bias"], stride=patch)
    return layer_norm(weights, "visual.embeddings.norm", maps.permute(0, 2, 3, 1))


def merge(weights: Weights, name: str, maps: Tensor) -> Tensor:
    maps = F.pad(maps, (0, 0, 0, maps.shape[2] % 2, 0, maps.shape[1] % 2))
    corners = [maps[:, 0::2, 0::2], maps[:, 1::2, 0::2], maps[:, 0::2, 1::2], maps[:, 1::2, 1::2]]
    return linear(weights, f"{name}reduction", layer_norm(weights, f"{name}norm", torch.cat(corners, dim=-1)))


def swin_block(weights: Weights, name: str, maps: Tensor, heads: int, window: int, shift: int) -> Tensor:
    """W-MSA or, shifted, SW-MSA, then the MLP, on a map [B, H, W, C]."""
    height, width = maps.shape[1:3]
    padded = F.pad(
        layer_norm(weights, f"{name}layernorm_before", maps), (0, 0, 0, -width % window, 0, -height % window)
    )
    region = regions(padded.shape[1], padded.shape[2], window, shift)
    shifted = torch.roll(padded, (-shift, -shift), (1, 2))
    attended = torch.empty_like(shifted)
    for top in range(0, shifted.shape[1], window):
        for left in range(0, shifted.shape[2], window):
            rows, columns = slice(top, top + window), slice(left, left + window)
            tokens = shifted[:, rows, columns].flatten(1, 2)
            at = region[rows, columns].flatten()
            masked = torch.where(at[:, None] == at[None, :], 0.0, -100.0).to(maps.dtype)
            out = attend(weights, f"{name}attention.", tokens, heads, window, masked)
            attended[:, rows, columns] = out.unflatten(1, (window, window))
    maps = maps + torch.roll(attended, (shift, shift), (1, 2))[:, :height, :width]
    hidden = F.gelu(linear(weights, f"{name}mlp.fc1", layer_norm(weights, f"{name}layernorm_after", maps)))
    return maps + linear(weights, f"{name}mlp.fc2", hidden)


def regions(height: int, width: int, window: int, shift: int) -> Tensor:
    """[H, W]: numbers of the nine parts of the shifted map; positions of different parts do not see each other."""
    region = torch.zeros(height, width, dtype=torch.int64)
    if shift:
        cuts = (slice(0, -window), slice(-window, -shift), slice(-shift, None))
        for row, rows in enumerate(cuts):
            for column, columns in enumerate(cuts):
                region[rows, columns] = 3 * row + column
    return region


def attend(weights: Weights, name: str, tokens: Tensor, heads: int, window: int, masked: Tensor) -> Tensor:
    """softmax(q k^T / sqrt(d) + B + mask) v of one window's tokens [B, A, C], head by head."""
    query, key, value = (linear(weights, f"{name}{which}_proj", tokens) for which in "qkv")
    table = weights[f"{name}relative_position_bias.relative_position_bias_table"]
    places = [(row, column) for row in range(window) for column in range(window)]
    relative = [
        [
            (row - other_row + window - 1) * (2 * window - 1) + column - other_column + window - 1
            for other_row, other_column in places
        ]
        for row, column in places
    ]
    bias = table[torch.tensor(relative)]
    size = tokens.shape[2] // heads
    out = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(1, 2) / size**0.5 + bias[..., head] + masked
        out.append(scores.softmax(dim=-1) @ value[..., part])
    return linear(weights, f"{name}o_proj", torch.cat(out, dim=-1))


def fuse(weights: Weights, name: str, maps: Tensor, words: Tensor, mask: Tensor, heads: int) -> Tensor:
    """PWAM of a map [B, H, W, C] and words [B, T, D], with 1 x 1 convolutions over positions and over words."""
    batch, height, width, channels = maps.shape
    pixels, text = maps.flatten(1, 2).transpose(1, 2), words.transpose(1, 2)
    real = mask[:, None].to(maps.dtype)

    def convolve(which: str, x: Tensor) -> Tensor:
        return F.conv1d(x, weights[f"{name}{which}.weight"][..., None], weights[f"{name}{which}.bias"])

    query = instance_norm(convolve("attention.query", pixels))
    key, value = convolve("attention.key", text) * real, convolve("attention.value", text) * real
    size = channels // heads
    gathered = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[:, part].transpose(1, 2) @ key[:, part] / channels**0.5 + (1e4 * real - 1e4)
        gathered.append(value[:, part] @ scores.softmax(dim=-1).transpose(1, 2))
    language = instance_norm(convolve("attention.output", torch.cat(gathered, dim=1)))
    visual = F.gelu(convolve("project_visual.0", pixels))
    fused = F.gelu(convolve("project_fused.0", visual * language))
    return fused.transpose(1, 2).reshape(batch, height, width, channels)


def instance_norm(x: Tensor) -> Tensor:
    mean, variance = x.mean(-1, keepdim=True), x.var(-1, unbiased=False, keepdim=True)
    return (x - mean) / (variance + 1e-5).sqrt()


def batch_norm(weights: Weights, name: str, x: Tensor, training: bool) -> Tensor:
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    else:
        mean, variance = weights[f"{name}.running_mean"], weights[f"{name}.running_var"]
    scale = weights[f"{name}.weight"] / (variance + 1e-5).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + weights[f"{name}.bias"][:, None, None]


def decode(weights: Weights, features: list[Tensor], *, training: bool) -> Tensor:
    """The light head's logits [B, 2, H, W] at the size of the finest features."""
    x = features[3]
    for level in range(3):
        fine = features[2 - level]
        x = torch.cat([resize(x, fine.shape[-2:]), fine], dim=1)
        for convolution, norm in ((0, 1), (3, 4)):
            x = F.conv2d(x, weights[f"decoder.levels.{level}.{convolution}.weight"], padding=1)
            x = batch_norm(weights, f"decoder.levels.{level}.{norm}", x, training).relu()
    return F.conv2d(x, weights["decoder.classify.weight"], weights["decoder.classify.bias"])
