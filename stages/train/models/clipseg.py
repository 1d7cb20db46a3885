"""CLIPSeg (Lüddecke and Ecker, CVPR 2022) as a RES model: transformers' network, its single logit as two channels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.models.interface import ResModel, by_decay
from semires.stages.train.models.tokenization import Tokenizer


class ClipSeg(ResModel):
    """transformers' `CLIPSegForImageSegmentation`; CLIP stays as it is and the decoder is trained, as in CLIPSeg.

    network: the CLIPSegForImageSegmentation. Its images are normalised with ImageNet's statistics, as the published
    weights' processor does. image_size: side of the images; by default the size that the network was made for, other
    sizes interpolate CLIP's position table. trains_clip: whether CLIP is trained too, because nobody has trained its
    text encoder before (clipseg_nano.py); its vision encoder then learns with `trunk_rate` times the rate.
    """

    def __init__(
        self, network: Any, tokenizer: Tokenizer, image_size: int | None = None, *, trains_clip: bool = False
    ) -> None:
        super().__init__()
        self.network = network
        self.trains_clip = trains_clip
        self.network.clip.requires_grad_(False)
        if trains_clip:
            for part in (*self._text_parts(), *self._vision_parts()):
                part.requires_grad_(True)
        self.tokenizer = tokenizer
        self.image_size = image_size or network.config.vision_config.image_size

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As in `ResModel`, of square images."""
        # Not the network's own forward, which runs CLIP without gradients; and it compares Python lengths, which fixes
        # the batch size of an export.
        words = self.network.clip.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        found = self.network.decoder(self.features(images), words).logits
        # Its map is a whole number of patches, which the images may not be.
        referent = F.interpolate(found[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
        # Half to each side: the margin between the two channels is the network's logit.
        return torch.cat([-referent / 2, referent / 2], dim=1)

    def features(self, images: Tensor) -> list[Tensor]:
        """What the decoder reads of the vision encoder: float32 [B, 1 + patches, C] of each of `extract_layers`, the
        class token first, then the patches in row-major order."""
        vision = self.vision(images, interpolate_pos_encoding=True, output_hidden_states=True)
        # The first of the hidden states is what goes into the first layer.
        return [vision.hidden_states[layer + 1] for layer in self.network.config.extract_layers]

    def parameter_groups(
        self, *, weight_decay: float, learning_rate: float, trunk_rate: float = 1.0
    ) -> list[dict[str, Any]]:
        """As in `ResModel`; the vision encoder of a CLIP that is trained has two groups of its own, before the others.

        At a `trunk_rate` of 0 it gets `requires_grad_(False)`: nothing of it is computed in the backward pass.
        """
        is_trained = self.trains_clip and trunk_rate > 0
        for part in self._vision_parts():
            part.requires_grad_(is_trained)
        trunk = [parameter for part in self._vision_parts() for parameter in part.parameters()]
        of_trunk = {id(parameter) for parameter in trunk}
        others = [parameter for parameter in self.parameters() if id(parameter) not in of_trunk]
        groups = by_decay(others, weight_decay=weight_decay, learning_rate=learning_rate)
        if is_trained:
            groups = [*by_decay(trunk, weight_decay=weight_decay, learning_rate=learning_rate * trunk_rate), *groups]
        return groups

    @property
    def vision(self) -> Any:
        """CLIP's vision encoder, in transformers' module."""
        return self.network.clip.vision_model

    def _text_parts(self) -> list[Any]:
        return [self.network.clip.text_model, self.network.clip.text_projection]

    def _vision_parts(self) -> list[Any]:
        """What `features` is made of: CLIP's own embedding of an image, which comes after, is not read."""
        return [self.vision.embeddings, self.vision.pre_layrnorm, self.vision.encoder]
