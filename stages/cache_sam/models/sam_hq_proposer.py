"""SAM-HQ as the generator asks it: transformers' `SamHQModel`, which is a SAM whose masks have a finer one added."""

from pathlib import Path
from typing import Any

import torch
from segment_anything.modeling import Sam
from torch import Tensor

from semires.stages.cache_sam.generator.proposer import Embedding
from semires.stages.cache_sam.generator.settings import PRECISIONS
from semires.stages.cache_sam.models.decoder import SharedTokens
from semires.stages.cache_sam.models.hq_masks import HqMasks
from semires.stages.cache_sam.models.loading.transformers_sam import build_sam, convert_weights
from semires.stages.cache_sam.models.sam_proposer import SamProposer

# Mean and standard deviation of each colour, of pixels from 0 to 1.
_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]

# How transformers' names of the weights that a SAM does not have begin, in its mask decoder.
_OF_HQ = tuple(f"mask_decoder.{part}" for part in ("hq_", "compress_vit_", "encoder_", "mask_conv", "mask_norm"))


class SamHqProposer(SamProposer):
    """A `SamHQModel`; its weights are read and rearranged at construction and must not change afterwards.

    `model` is in eval mode on its device. Its pixels from 0 to 1 are normalized by `model.pixel_mean` and
    `model.pixel_std`, three numbers each, which loading sets; where it has none, by SAM's.

    As with transformers' `multimask_output`, a prompt has three masks in falling order of predicted IoU, each of them
    SAM's with the one HQ mask added (`hq_token_only=False`). The generator of the SAM-HQ repository takes only the
    first of the three.

    Masks are those of the SAM-HQ repository. transformers 5.23 and 5.24 have other ones by mistake: of the mask
    decoder's transformer they lose the image tokens, and upscale the image embedding that went in, rows and columns
    exchanged. Predicted IoU is the same in both.
    """

    def __init__(self, model: Any, precision: str, *, compiled: bool = False) -> None:
        self._hq = HqMasks(model.mask_decoder, PRECISIONS[precision])
        super().__init__(sam_of(model), precision, compiled=compiled, hq=self._hq)

    def encode(self, pixels: Tensor) -> Embedding:
        """Embeddings [I, C, grid, grid] and HQ features [I, C / 8, 4 grid, 4 grid]."""
        embedding, early = self._encoder.encode_both(pixels)
        dtype = PRECISIONS[self.precision]
        with torch.autocast(pixels.device.type, dtype=dtype, enabled=dtype != torch.float32):
            return embedding, self._hq.features(embedding, early)

    def share(self, embedding: Embedding) -> SharedTokens:
        """Image tokens, the first layer's projections of them, and the HQ features."""
        tokens, features = embedding
        return self._decoder.share(tokens, hq=features)


def sam_of(model: Any) -> Sam:
    """The SAM in a `SamHQModel` as segment-anything's modules, on its device in eval mode; both share their weights."""
    mean, std = getattr(model, "pixel_mean", _MEAN), getattr(model, "pixel_std", _STD)
    source = Path(model.name_or_path or "SamHQModel")
    sam = build_sam(model.config, [255 * value for value in mean], [255 * value for value in std], source)
    # Parameters, not the state dict: of tied weights these are one.
    weights = {name: value.detach() for name, value in model.named_parameters() if not name.startswith(_OF_HQ)}
    sam.load_state_dict(convert_weights(weights, sam, source), assign=True)
    return sam.eval().to(model.device)
