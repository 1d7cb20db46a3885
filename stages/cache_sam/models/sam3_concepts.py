"""SAM 3 asked by name: transformers' `Sam3Model`, alone or with the tracker that answers points.

The two of a SAM 3 have one ViT and a neck each. An image is stretched to the model's square in floats, see
sam2_proposer.py. Masks are cut from logits that are upsampled first, as SAM 3's own `Sam3Processor` does; transformers'
`post_process_instance_segmentation` upsamples probabilities, whose masks differ in some pixels of their edges.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.stages.cache_sam.generator.proposer import Embedding, Tokens, WordModel
from semires.stages.cache_sam.generator.settings import PRECISIONS
from semires.stages.cache_sam.models.decoder import SharedTokens
from semires.stages.cache_sam.models.sam2_proposer import (
    PIXELS_OF_SAM3,
    Sam2Proposer,
    sam3_tokens,
    stretched_pixels,
)

# What Sam3Processor of transformers pads every prompt to, in tokens.
_MAX_TOKENS = 32


@dataclass(kw_only=True)
class Sam3:
    """A SAM 3 in eval mode on one device: what answers words, and, where it is asked as well, what answers points."""

    text: Any
    """transformers' `Sam3Model`."""
    tokenizer: Any
    """Its tokenizer."""
    tracker: Any = None
    """transformers' `Sam3TrackerModel` of the same weights, or None."""

    def to(self, device: torch.device) -> "Sam3":
        """Itself, on that device; the ViT of both is then one."""
        self.text.to(device)
        if self.tracker is not None:
            self.tracker.vision_encoder.backbone = self.text.vision_encoder.backbone
            self.tracker.to(device)
        return self


@dataclass(frozen=True, eq=False)
class Found:
    """The answer to P words: `iou` float32 [P, M], how sure it is that the word is there and each mask is one; `masks`
    float32 [P, M, l, l], their logits."""

    iou: Tensor
    masks: Tensor


class Sam3Concepts(WordModel):
    """A `Sam3Model` asked for words; M are its queries, 200 as published.

    Pixels from 0 to 1 are normalized by `text.pixel_mean` and `text.pixel_std` where it has them, else as SAM 3's.
    """

    stretches = True

    def __init__(self, sam3: Sam3, precision: str) -> None:
        self._model, self._tokenizer = sam3.text, sam3.tokenizer
        mean, std = PIXELS_OF_SAM3
        self._statistics = getattr(self._model, "pixel_mean", mean), getattr(self._model, "pixel_std", std)
        self.device = self._model.device
        self.precision = precision
        self._dtype = PRECISIONS[precision]
        encoder = self._model.vision_encoder
        self.side = encoder.config.backbone_config.image_size
        # The coarsest level of the neck is not read.
        self._layers = list(encoder.neck.fpn_layers)[:-1]
        grid, scales = self.side // encoder.config.backbone_config.patch_size, encoder.config.scale_factors[:-1]
        self.low_side = int(grid * max(scales))
        channels = encoder.config.fpn_hidden_size
        self.bytes_a_prompt = 4 * channels * grid**2
        with torch.no_grad():
            self._positions = [
                encoder.neck.position_encoding((1, channels, side, side), self.device, torch.float32)
                for side in (int(grid * scale) for scale in scales)
            ]

    def load(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """RGB images uint8 [H, W, 3], stretched to the square and normalized: float32 [I, 3, S, S]."""
        return stretched_pixels(images, self.side, self.device, self._statistics)

    def encode(self, pixels: Tensor) -> Embedding:
        """The neck's features, the finest first: as published [I, 256, 288, 288], of 144 and of 72 a side."""
        with self._autocast():
            return self.encode_tokens(sam3_tokens(self._model.vision_encoder, pixels))

    def encode_tokens(self, tokens: Tensor) -> Embedding:
        """The same from what the ViT made of the pixels, [I, c, g, g]."""
        return tuple(layer(tokens) for layer in self._layers)

    def share(self, embedding: Embedding) -> Any:
        """The last tensors of an embedding, which are this model's, with their positions, as `Sam3Model` takes them."""
        levels = embedding[-len(self._layers) :]
        return tuple((level[None], position) for level, position in zip(levels, self._positions, strict=True))

    def embed_word(self, word: str) -> Tokens:
        """What the text encoder makes of a word, [1, 32, C], and which of it are its tokens, int64 [1, 32]."""
        asked = self._tokenizer(
            word, padding="max_length", max_length=_MAX_TOKENS, truncation=True, return_tensors="pt"
        ).to(self.device)
        with self._autocast():
            features = self._model.get_text_features(asked["input_ids"], asked["attention_mask"]).pooler_output
        return features, asked["attention_mask"]

    def decode(self, shared: Any, *tokens: Tensor) -> Found:
        """All queries' scores and logits."""
        from transformers.modeling_outputs import BaseModelOutputWithPooling
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        features, is_token = tokens
        of_each = [[part.expand(len(features), -1, -1, -1) for part in pair] for pair in shared]
        levels, positions = (tuple(parts) for parts in zip(*of_each, strict=True))
        with self._autocast():
            found = self._model(
                # `Sam3Model` leaves the last level out, whatever it is.
                vision_embeds=Sam3VisionEncoderOutput(
                    fpn_hidden_states=(*levels, None), fpn_position_encoding=(*positions, None)
                ),
                text_embeds=BaseModelOutputWithPooling(pooler_output=features),
                attention_mask=is_token,
            )
        scores = found.pred_logits.float().sigmoid() * found.presence_logits.float().sigmoid()
        return Found(iou=scores, masks=found.pred_masks)

    def logits(self, shared: Any, decoded: Found, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Those of the masks asked for."""
        prompt, mask = masks_K2.to(self.device).unbind(1)
        return decoded.masks[prompt, mask].float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32)


class Sam3Grid(Sam2Proposer):
    """The tracker of a SAM 3 whose embeddings are also those of `concepts`: the ViT runs once for both."""

    def __init__(self, sam3: Sam3, concepts: Sam3Concepts, *, compiled: bool = False) -> None:
        super().__init__(sam3.tracker, concepts.precision, compiled=compiled)
        self._concepts = concepts

    def encode(self, pixels: Tensor) -> Embedding:
        """`Sam2Proposer.encode`'s three, then those of `Sam3Concepts.encode`."""
        encoder = self._model.vision_encoder
        with torch.autocast(pixels.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            tokens = sam3_tokens(encoder, pixels)
            levels = [layer(tokens) for layer in encoder.neck.fpn_layers[:3]]
            return *self.encode_levels(*levels), *self._concepts.encode_tokens(tokens)

    def share(self, embedding: Embedding) -> SharedTokens:
        """Of the first three."""
        return super().share(embedding[:3])
