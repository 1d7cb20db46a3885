"""CLIPSeg (Lüddecke and Ecker, CVPR 2022) as a RES model: transformers' network, its single logit as two channels."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer


class ClipSeg(ResModel):
    """transformers' `CLIPSegForImageSegmentation`; CLIP stays as it is and the decoder is trained, as in CLIPSeg.

    network: the CLIPSegForImageSegmentation. Its images are normalised with ImageNet's statistics, as the published
    weights' processor does. image_size: side of the images; by default the size that the network was made for, other
    sizes interpolate CLIP's position table.
    """

    def __init__(self, network: Any, tokenizer: Tokenizer, image_size: int | None = None) -> None:
        super().__init__()
        self.network = network
        self.network.clip.requires_grad_(False)  # transformers runs it without gradients anyway
        self.tokenizer = tokenizer
        self.image_size = image_size or network.config.vision_config.image_size

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As in `ResModel`, of square images."""
        # Asked for here, not by the network: it compares Python lengths, which fixes the batch size of an export.
        with torch.no_grad():
            words = self.network.clip.get_text_features(input_ids, attention_mask=attention_mask).pooler_output
        found = self.network(pixel_values=images, conditional_embeddings=words).logits
        # Its map is a whole number of patches, which the images may not be.
        referent = F.interpolate(found[:, None], images.shape[-2:], mode="bilinear", align_corners=False)
        # Half to each side: the margin between the two channels is the network's logit.
        return torch.cat([-referent / 2, referent / 2], dim=1)
