"""LAVT written plainly, the contestant of `semires bench lavt`: what the public code does, on transformers' modules.

Swin's and BERT's layers run their own forward passes (masks built anew in each), words and pixels meet in convolutions
with the channels in front, and the decoder upsamples, concatenates and convolves.
"""

from __future__ import annotations

import copy
import functools
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.fusion import MASKED_SCORE, StageFusion


class PlainLavt(nn.Module):
    """The network of `lavt` with a copy of its weights, written plainly; it takes the same gradients.

    The dropouts and drop paths are the same too, but draw other random numbers.
    """

    def __init__(self, lavt: Lavt) -> None:
        super().__init__()
        copied = copy.deepcopy(lavt)
        # Any: modules of transformers, whose types we do not follow.
        self.embeddings: Any = copied.visual.embeddings
        self.layers: Any = copied.visual.layers
        self.bert: Any = copied.text.bert
        self.fusion = nn.ModuleList(_PlainFusion(stage) for stage in copied.fusion if isinstance(stage, StageFusion))
        self.levels = copied.decoder.levels
        self.classify = copied.decoder.classify
        # transformers drops the path of the attention only.
        for layer in self.layers:
            for block in layer.blocks:
                block.mlp.register_forward_hook(functools.partial(_drop_path, block.drop_path))

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `Lavt.forward`."""
        words = self.bert(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.transpose(1, 2)
        tokens, size = self.embeddings(images)
        features = []
        for layer, fusion in zip(self.layers, self.fusion, strict=True):
            for block in layer.blocks:
                tokens, _ = block(tokens, size, always_partition=True)
            tokens, fused = fusion(tokens, words, attention_mask)
            features.append(fused.transpose(1, 2).unflatten(2, size).contiguous())
            if layer.downsample is not None:
                tokens = layer.downsample(tokens, size)
                size = ((size[0] + 1) // 2, (size[1] + 1) // 2)
        x = features.pop()
        for level in self.levels:
            fine = features.pop()
            x = level(torch.cat([_upsample(x, fine.shape[-2:]), fine], dim=1))
        return _upsample(self.classify(x), images.shape[-2:])


class _PlainFusion(nn.Module):
    """Pixel-word attention module, gate and norm of a stage, channels in front of positions as in LAVT's code."""

    def __init__(self, stage: StageFusion) -> None:
        super().__init__()
        attention = stage.fusion.attention
        self.query, self.key = _convolution(attention.query), _convolution(attention.key)
        self.value, self.output = _convolution(attention.value), _convolution(attention.output)
        self.project_visual = nn.Sequential(
            _convolution(stage.fusion.project_visual[0]), *stage.fusion.project_visual[1:]
        )
        self.project_fused = nn.Sequential(_convolution(stage.fusion.project_fused[0]), *stage.fusion.project_fused[1:])
        self.heads, self.scale = attention.heads, attention.scale
        self.instance_norm = nn.InstanceNorm1d(attention.query.out_features)
        self.gate, self.norm = stage.gate, stage.norm

    def forward(self, tokens: Tensor, words: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """What the next stage reads and what the decoder reads, [B, N, C], of tokens [B, N, C] and words [B, D, T]."""
        pixels, real = tokens.transpose(1, 2), mask[:, None].to(words.dtype)
        query = self.instance_norm(self.query(pixels)).unflatten(1, (self.heads, -1)).transpose(2, 3)
        key = (self.key(words) * real).unflatten(1, (self.heads, -1))
        value = (self.value(words) * real).unflatten(1, (self.heads, -1)).transpose(2, 3)
        scores = query @ key * self.scale + (1 - real[:, None]) * MASKED_SCORE
        gathered = (scores.softmax(dim=-1) @ value).transpose(2, 3).flatten(1, 2)
        language = self.instance_norm(self.output(gathered))
        fused = self.project_fused(self.project_visual(pixels) * language).transpose(1, 2)
        carried = tokens if self.gate is None else tokens + self.gate(fused) * fused
        return carried, self.norm(fused)


def _convolution(linear: nn.Module) -> nn.Conv1d:
    """The 1 x 1 convolution of a linear layer's weights."""
    assert isinstance(linear, nn.Linear)
    weight = linear.weight
    convolution = nn.Conv1d(linear.in_features, linear.out_features, 1, device=weight.device, dtype=weight.dtype)
    with torch.no_grad():
        convolution.weight.copy_(weight[..., None])
        convolution.bias.copy_(linear.bias)  # type: ignore[union-attr]
    return convolution


def _upsample(maps: Tensor, size: torch.Size) -> Tensor:
    return F.interpolate(maps, size=size, mode="bilinear", align_corners=True)


def _drop_path(drop_path: nn.Module, _mlp: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return drop_path(output)
