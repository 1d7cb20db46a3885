"""LAVT: language-aware vision transformer for referring segmentation (Yang et al., CVPR 2022).

Words from BERT are fused into each of Swin's four stages; a light top-down head reads the fused features.
"""

import functools
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.origin import Origin
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt.config import COARSEST_STRIDE, LavtConfig
from semires.stages.train.models.lavt.decoder import Decoder, upsample
from semires.stages.train.models.lavt.fusion import StageFusion
from semires.stages.train.models.lavt.language import TextEncoder
from semires.stages.train.models.lavt.parameter_groups import parameter_groups
from semires.stages.train.models.lavt.visual import NUM_STAGES, SwinTrunk, call
from semires.stages.train.models.tokenization import Tokenizer

_recompute = functools.partial(checkpoint, use_reentrant=False)


class Lavt(ResModel):
    """LAVT with random weights; `load_swin` and `load_bert` give the backbones those of pre-trained ones.

    tokenizer: makes its input_ids; needed where expressions come as text, in training, evaluation and prediction.

    origin: the checkpoint that it was converted from, if any.

    The parts: `visual` (SwinTrunk, usable alone), `text` (TextEncoder), `fusion` (a StageFusion per stage), `decoder`.

    A trained one is the folder that `semires convert RUN --output FOLDER` or `save_pretrained` writes, or its name on
    the hub:

    >>> import semires
    >>> model = semires.Lavt.from_pretrained("model")
    >>> model.image_size, model.training
    (96, False)
    """

    has_idle_parameters = False
    gradient_checkpointing: bool = False
    """Whether training keeps of each Swin block and fusion only the input and computes the rest again in the backward
    pass: less memory, more time, the same gradients."""

    def __init__(self, config: LavtConfig, tokenizer: Tokenizer | None = None) -> None:
        super().__init__()
        self.config = config
        self.image_size = config.image_size
        self.origin: Origin | None = None
        if tokenizer is not None:
            self.tokenizer = tokenizer
        self.visual = SwinTrunk(
            embed_dim=config.swin_embed_dim,
            depths=config.swin_depths,
            heads=config.swin_heads,
            window=config.swin_window,
            patch=config.swin_patch,
            drop_path=config.drop_path,
        )
        self.text = TextEncoder(
            vocab_size=config.vocab_size,
            hidden=config.text_hidden,
            layers=config.text_layers,
            heads=config.text_heads,
            intermediate=config.text_intermediate,
            positions=config.text_positions,
        )
        self.fusion = nn.ModuleList(
            StageFusion(
                channels,
                config.text_hidden,
                heads=config.fusion_heads[stage],
                dropout=config.fusion_dropout,
                gated=stage < NUM_STAGES - 1,
            )
            for stage, channels in enumerate(self.visual.channels)
        )
        self.decoder = Decoder(self.visual.channels, config.decoder_width)

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float32 [B, 2, H, W] (background, referent) at the size of the images.

        images: float32 [B, 3, H, W], ImageNet-normalised, of any size above 8 patches a side. input_ids: int64
        [B, T]. attention_mask: int64 or bool [B, T], non-zero where there is a token.

        Raises InputError for smaller images. In evaluation a sample's logits do not depend on its batch; in training
        they do, through the decoder's batch norm.
        """
        height, width = images.shape[-2:]
        smallest = self.config.swin_patch * COARSEST_STRIDE
        if height <= smallest or width <= smallest:  # not min: torch.export would then fix which side is shorter
            raise InputError(
                f"expected images of more than {smallest} pixels a side, found {height} x {width}: enlarge them"
            )
        words = self.text(input_ids, attention_mask)

        def fuse(stage: int, tokens: Tensor, _size: tuple[int, int]) -> tuple[Tensor, Tensor]:
            return self.fusion[stage](tokens, words, attention_mask)

        run = _recompute if self.gradient_checkpointing and torch.is_grad_enabled() else call
        return upsample(self.decoder(self.visual(images, fuse, run)), (height, width))

    def parameter_groups(
        self, *, weight_decay: float, learning_rate: float, trunk_rate: float = 1.0
    ) -> list[dict[str, Any]]:
        """LAVT's own groups, and what it leaves as it is gets `requires_grad_(False)`: see parameter_groups.py."""
        return parameter_groups(self, weight_decay=weight_decay, learning_rate=learning_rate, trunk_rate=trunk_rate)

    def text_modules(self) -> Iterable[nn.Module]:
        """BERT."""
        return (self.text,)
