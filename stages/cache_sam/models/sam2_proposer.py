"""SAM 2 and its kin as the generator asks it: transformers' `Sam2Model`, `EdgeTamModel` and `Sam3TrackerModel`.

The three differ in how an image is encoded. Their prompts and their mask decoder are one: SAM's, with a token for the
object's presence, features of twice and four times the resolution, and predicted IoU through a sigmoid. An image is
stretched to the model's square, in floats, as SAM 2's own `SAM2Transforms` does; transformers' processor rounds the
resized pixels to whole numbers.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as pixels_of

from semires.stages.cache_sam.generator.proposer import Embedding, RefiningProposer, Tokens
from semires.stages.cache_sam.generator.settings import PRECISIONS, GeneratorSettings
from semires.stages.cache_sam.models.decoder import Decoded, PromptDecoder, SharedTokens
from semires.stages.cache_sam.models.loading.sam2_decoder import sams_decoder

# SAM2AutomaticMaskGenerator's defaults where they are not SAM's.
GENERATOR_SETTINGS = GeneratorSettings(pred_iou_thresh=0.8)

# Mean and standard deviation of each colour, of pixels from 0 to 1: ImageNet's, and SAM 3's.
_PIXELS = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
PIXELS_OF_SAM3 = ([0.5] * 3, [0.5] * 3)

# A mask that is asked about again: SAM2ImagePredictor clamps its logits to what prompts were in training.
_LARGEST_LOGIT = 32.0


class Sam2Proposer(RefiningProposer):
    """One of transformers' three models; weights are read and rearranged at construction and must not change.

    `model` is in eval mode on its device. Its pixels from 0 to 1 are normalized by `model.pixel_mean` and
    `model.pixel_std`, three numbers each, which loading sets; where it has none, by those of its kind.

    A point becomes T = 8 tokens of C channels: the decoder's object token, IoU token and four mask tokens, the point,
    and one that is none.
    """

    stretches = True

    def __init__(self, model: Any, precision: str, *, compiled: bool = False) -> None:
        self._model = model
        usual = PIXELS_OF_SAM3 if type(model).__name__ == "Sam3TrackerModel" else _PIXELS
        self._statistics = getattr(model, "pixel_mean", usual[0]), getattr(model, "pixel_std", usual[1])
        self.device = model.device
        self.precision = precision
        self.compiled = compiled
        self._dtype = PRECISIONS[precision]
        self.side = model.prompt_encoder.input_image_size
        decoder = model.mask_decoder
        self._by_stability = decoder.dynamic_multimask_via_stability
        self._delta, self._least = decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh
        with torch.no_grad():
            self._decoder = PromptDecoder(
                sams_decoder(decoder),
                self._dtype,
                position_CHW=model.get_image_wide_positional_embeddings()[0],
                no_mask=model.prompt_encoder.no_mask_embed.weight[0],
                object_token=decoder.obj_score_token.weight,
                sigmoid=True,
            )
        self.low_side = self._decoder.low_side
        self.bytes_a_prompt = self._decoder.bytes_a_prompt

    def load(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """RGB images uint8 [H, W, 3], stretched to the square and normalized: float32 [I, 3, S, S]."""
        return stretched_pixels(images, self.side, self.device, self._statistics)

    def encode(self, pixels: Tensor) -> Embedding:
        """Embeddings [I, C, g, g], and features [I, C / 4, 2 g, 2 g] and [I, C / 8, 4 g, 4 g]."""
        with torch.autocast(pixels.device.type, dtype=self._dtype, enabled=self._dtype != torch.float32):
            return self.encode_levels(*_pyramid(self._model.vision_encoder, pixels))

    def encode_levels(self, finest: Tensor, fine: Tensor, embedding: Tensor) -> Embedding:
        """The same from the vision encoder's features, [I, C, 4 g, 4 g], [I, C, 2 g, 2 g] and [I, C, g, g]."""
        model, decoder = self._model, self._model.mask_decoder
        # A video's frame without a memory has this added, and a photograph is one.
        embedding = embedding + model.no_memory_embedding.view(1, -1, 1, 1)
        return embedding, decoder.conv_s1(fine), decoder.conv_s0(finest)

    def share(self, embedding: Embedding) -> SharedTokens:
        """Image tokens, the first layer's projections of them, and the features of higher resolution."""
        return self._decoder.share(*embedding)

    def embed(self, points_xy: Tensor, size: tuple[int, int]) -> Tokens:
        """Prompts' tokens, and what the first layer makes of them alone: each float32 [P, T, C]."""
        height, width = size
        # Float32 from here on, as in SAM 2's generator.
        x, y = points_xy.float().unbind(1)
        in_square = torch.stack([x / width, y / height], dim=1) * self.side
        labels = torch.ones((1, len(points_xy), 1), dtype=torch.int, device=self.device)
        embedded, _ = self._model.prompt_encoder(in_square[None, :, None], labels, None, None)
        tokens = torch.cat([self._decoder.output_tokens.expand(len(points_xy), -1, -1), embedded[0]], dim=1)
        return tokens, self._decoder.attend_prompts(tokens)

    def decode(self, shared: SharedTokens, *tokens: Tensor) -> Decoded:
        """Three masks a prompt."""
        return self._decoder.decode(shared, *tokens)

    def logits(self, shared: SharedTokens, decoded: Decoded, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits; see `PromptDecoder.logits`."""
        return self._decoder.logits(shared, decoded, masks_K2, size)

    def refine(self, shared: SharedTokens, logits: Tensor, *tokens: Tensor) -> tuple[Tensor, Tensor]:
        """`refine_with_m2m` of SAM2AutomaticMaskGenerator: one mask for each prompt and the mask it got before.

        Where the mask of the first token is not stable, the best of the other three (dynamic multimask by stability).
        """
        masks = self._model.prompt_encoder.mask_embed(logits.clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT)[:, None])
        tokens_BTC, attended_BTC = tokens
        decoded = self._decoder.decode_masked(shared, tokens_BTC, attended_BTC, masks.flatten(2).transpose(1, 2))
        num_prompts, num_masks = decoded.iou.shape
        every = torch.cartesian_prod(torch.arange(num_prompts), torch.arange(num_masks))
        size = (self.low_side, self.low_side)
        refined = self._decoder.logits(shared, decoded, every, size).unflatten(0, (num_prompts, num_masks))
        if not self._by_stability:
            return decoded.iou[:, 0], refined[:, 0]
        inner, outer = ((refined[:, 0] > delta).sum((1, 2)) for delta in (self._delta, -self._delta))
        is_stable = torch.where(outer > 0, inner / outer, 1.0) >= self._least
        best = torch.where(is_stable, 0, 1 + decoded.iou[:, 1:].argmax(dim=1))
        prompt = torch.arange(num_prompts, device=self.device)
        return decoded.iou[prompt, best], refined[prompt, best]


def stretched_pixels(
    images: Sequence[NDArray[np.uint8]], side: int, device: torch.device, statistics: tuple[list[float], list[float]]
) -> Tensor:
    """RGB images uint8 [H, W, 3] as float32 [I, 3, side, side], normalized by the mean and standard deviation given."""
    square = [
        pixels_of.resize(torch.from_numpy(image).to(device).permute(2, 0, 1).contiguous().float() / 255, [side, side])
        for image in images
    ]
    return pixels_of.normalize(torch.stack(square), *statistics)


def sam3_tokens(encoder: Any, pixels: Tensor) -> Tensor:
    """What the ViT of a SAM 3's vision encoder makes of pixels [I, 3, S, S]: [I, c, g, g], which its necks read."""
    grid = pixels.shape[-1] // encoder.config.backbone_config.patch_size
    tokens: Tensor = encoder.backbone(pixels).last_hidden_state
    return tokens.unflatten(1, (grid, grid)).permute(0, 3, 1, 2)


def _pyramid(encoder: Any, pixels: Tensor) -> list[Tensor]:
    """Features of four times, twice and once the grid's resolution, [I, C, 4 g, 4 g] and so on.

    What transformers' vision encoders return, without the encodings of positions that they compute for each image and
    level and that only a video's memory reads. SAM 3 has a fourth, coarser level, which the mask decoder does not read.
    """
    neck = encoder.neck
    if not hasattr(neck, "fpn_top_down_levels"):
        tokens = sam3_tokens(encoder, pixels)
        return [layer(tokens) for layer in neck.fpn_layers[:3]]
    found = encoder.backbone(pixels)
    if hasattr(found, "intermediate_hidden_states"):
        maps = [each.permute(0, 3, 1, 2) for each in found.intermediate_hidden_states]
    else:
        maps = list(found.last_hidden_state)  # EdgeTAM's, timm's
    levels: list[Tensor] = []
    for level in reversed(range(len(maps))):
        features = neck.convs[len(levels)](maps[level])
        if levels and level in neck.fpn_top_down_levels:
            features = features + F.interpolate(levels[-1], scale_factor=2.0, mode="nearest")
        levels.append(features)
    return levels[: -encoder.num_feature_levels - 1 : -1]
