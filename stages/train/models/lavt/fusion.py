"""Where LAVT meets language: pixel-word attention and the language gate (Yang et al., CVPR 2022).

Axes: B batch, N = H * W positions, C visual channels, T tokens, D text channels, h heads, c channels of a head.
"""

import torch
from torch import Tensor, nn

from semires.stages.data.errors import InputError

# Added to the scores of padded words: e**-1e4 is 0 in every float type, and 1e4 still fits into float16. Infinity
# would turn a sample without any word into NaN.
MASKED_SCORE = -1e4


class PixelWordAttention(nn.Module):
    """Each position gathers the words that matter to it.

    channels: C, also of keys and values. text_channels: D. heads: attention heads, 1 in LAVT.

    Query and output are instance-normalised over the positions of a sample, without learned scale and in training and
    evaluation alike, so there must be at least two positions. Nothing mixes samples: batch size 1 is like any other.

    LAVT's 1 x 1 convolutions are linear layers here: the same function and the same initial weights, without moving
    the channels to the front and back.
    """

    def __init__(self, channels: int, text_channels: int, heads: int = 1) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(
                f"expected fusion_heads that divide the {channels} channels of the stage, found {heads}: change them"
            )
        self.heads = heads
        # LAVT scales by all key channels, whatever the number of heads.
        self.scale = channels**-0.5
        self.query = nn.Linear(channels, channels)
        self.key = nn.Linear(text_channels, channels)
        self.value = nn.Linear(text_channels, channels)
        self.output = nn.Linear(channels, channels)
        self.instance_norm = nn.InstanceNorm1d(channels)

    def forward(self, pixels_BNC: Tensor, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Language features of each position, float32 [B, N, C].

        pixels_BNC, words_BTD: float32. mask_BT: non-zero where there is a word; padded words have no influence.
        """
        query_BNC, device_type = self.query(pixels_BNC), pixels_BNC.device.type
        if not torch.is_autocast_enabled(device_type):
            return self._attend(query_BNC, words_BTD, mask_BT)
        # What a position gathers differs little from position to position, all the less before training, and the norms
        # divide by that difference: in bfloat16 they would magnify its rounding.
        with torch.autocast(device_type, enabled=False):
            return self._attend(query_BNC.float(), words_BTD.float(), mask_BT)

    def _attend(self, query_BNC: Tensor, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        mask_BT1 = mask_BT[..., None].to(words_BTD.dtype)
        query_BhNc = self._split(self._normalise(query_BNC))
        key_BhTc = self._split(self.key(words_BTD) * mask_BT1)
        value_BhTc = self._split(self.value(words_BTD) * mask_BT1)
        scores_BhNT = query_BhNc @ key_BhTc.transpose(-2, -1) * self.scale
        scores_BhNT = scores_BhNT + (1 - mask_BT1.transpose(1, 2)[:, None]) * MASKED_SCORE
        gathered_BhNc = scores_BhNT.softmax(dim=-1) @ value_BhTc
        return self._normalise(self.output(gathered_BhNc.transpose(1, 2).flatten(2)))

    def _split(self, features: Tensor) -> Tensor:
        """[B, L, C] -> [B, heads, L, C / heads]."""
        return features.unflatten(2, (self.heads, -1)).transpose(1, 2)

    def _normalise(self, features_BNC: Tensor) -> Tensor:
        return self.instance_norm(features_BNC.transpose(1, 2)).transpose(1, 2)


class PixelWordFusion(nn.Module):
    """LAVT's PWAM: the language features of a position times its projected visual features, projected again.

    channels: C. text_channels: D. heads: of the attention. dropout: after either projection, 0 in LAVT.
    """

    def __init__(self, channels: int, text_channels: int, heads: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        self.attention = PixelWordAttention(channels, text_channels, heads)
        self.project_visual = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout))
        self.project_fused = nn.Sequential(nn.Linear(channels, channels), nn.GELU(), nn.Dropout(dropout))

    def forward(self, pixels_BNC: Tensor, words_BTD: Tensor, mask_BT: Tensor) -> Tensor:
        """Fused features float32 [B, N, C]; mask_BT as in PixelWordAttention."""
        language_BNC = self.attention(pixels_BNC, words_BTD, mask_BT)
        return self.project_fused(self.project_visual(pixels_BNC) * language_BNC)


class LanguageGate(nn.Module):
    """How much of the fused features goes back into the trunk: tanh(W2 relu(W1 r)) in (-1, 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        first, second = nn.Linear(channels, channels, bias=False), nn.Linear(channels, channels, bias=False)
        # Small weights: the gate opens from about 0, so a pre-trained trunk first sees what it was trained on.
        for linear in (first, second):
            nn.init.trunc_normal_(linear.weight, std=0.02)
        self.gate = nn.Sequential(first, nn.ReLU(), second, nn.Tanh())

    def forward(self, fused_BNC: Tensor) -> Tensor:
        """Gate values float32 [B, N, C]."""
        return self.gate(fused_BNC)


class StageFusion(nn.Module):
    """What LAVT does between a stage's blocks and its downsampling.

    gated: False for the last stage, after which the trunk ends: there is nothing to carry on, and a gate would be
    weights without a gradient.
    """

    def __init__(
        self, channels: int, text_channels: int, *, heads: int = 1, dropout: float = 0.0, gated: bool = True
    ) -> None:
        super().__init__()
        self.fusion = PixelWordFusion(channels, text_channels, heads, dropout)
        self.gate = LanguageGate(channels) if gated else None
        self.norm = nn.LayerNorm(channels)

    def forward(self, pixels_BNC: Tensor, words_BTD: Tensor, mask_BT: Tensor) -> tuple[Tensor, Tensor]:
        """(carried, output), both float32 [B, N, C].

        carried: pixels + gate(fused) * fused, the trunk's next input. output: the layer-normed fused features, which
        the decoder reads.
        """
        fused = self.fusion(pixels_BNC, words_BTD, mask_BT)
        carried = pixels_BNC if self.gate is None else pixels_BNC + self.gate(fused) * fused
        return carried, self.norm(fused)
