"""segment-anything's SAM as the generator asks it: one embedding an image, three masks a point."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

from semires.stages.cache_sam.generator.proposer import Embedding, Proposer, Tokens
from semires.stages.cache_sam.generator.settings import PRECISIONS
from semires.stages.cache_sam.models.decoder import Decoded, PromptDecoder, SharedTokens
from semires.stages.cache_sam.models.encoder import ImageEncoder
from semires.stages.cache_sam.models.hq_masks import HqMasks


class SamProposer(Proposer):
    """A `Sam`; its weights are read and rearranged at construction and must not change afterwards.

    A point becomes T = 7 tokens of C channels: the decoder's IoU token, its four mask tokens, the point, and the
    padding that stands where a box would be. `hq`, of a SAM-HQ, adds its token.
    """

    def __init__(self, sam: Sam, precision: str, *, compiled: bool = False, hq: HqMasks | None = None) -> None:
        self._sam = sam
        self.device = sam.device
        self.precision = precision
        self.compiled = compiled
        dtype = PRECISIONS[precision]
        self._encoder = ImageEncoder(sam, dtype, compiled=compiled)
        with torch.no_grad():
            self._decoder = PromptDecoder(
                sam.mask_decoder,
                dtype,
                position_CHW=sam.prompt_encoder.get_dense_pe()[0],
                no_mask=sam.prompt_encoder.no_mask_embed.weight[0],
                hq=hq,
            )
        self.side = sam.image_encoder.img_size
        self.low_side = self._decoder.low_side
        self.bytes_a_prompt = self._decoder.bytes_a_prompt
        self.mask_threshold = sam.mask_threshold
        self._resize = ResizeLongestSide(self.side)

    def load(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """RGB images uint8 [H, W, 3], resized, normalized and padded as `Sam.preprocess` does."""
        return self._encoder.load(images)

    def encode(self, pixels: Tensor) -> Embedding:
        """Embeddings [I, C, grid, grid]."""
        return (self._encoder.encode(pixels),)

    def share(self, embedding: Embedding) -> SharedTokens:
        """Image tokens, and the first layer's projections of them."""
        return self._decoder.share(*embedding)

    def embed(self, points_xy: Tensor, size: tuple[int, int]) -> Tokens:
        """Prompts' tokens, and what the first layer makes of them alone: each float32 [P, T, C]."""
        # Float64 up to the positional encoding, as SAM's predictor has it.
        in_input_frame = torch.as_tensor(self._resize.apply_coords(points_xy.cpu().numpy(), size), device=self.device)
        labels = torch.ones((len(points_xy), 1), dtype=torch.int, device=self.device)
        embedded, _ = self._sam.prompt_encoder(points=(in_input_frame[:, None, :], labels), boxes=None, masks=None)
        tokens = torch.cat([self._decoder.output_tokens.expand(len(points_xy), -1, -1), embedded], dim=1)
        return tokens, self._decoder.attend_prompts(tokens)

    def decode(self, shared: SharedTokens, *tokens: Tensor) -> Decoded:
        """Three masks a prompt."""
        return self._decoder.decode(shared, *tokens)

    def logits(self, shared: SharedTokens, decoded: Decoded, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits; see `PromptDecoder.logits`."""
        return self._decoder.logits(shared, decoded, masks_K2, size)
