"""SAM-HQ's own mask of a prompt, which it adds to each of SAM's: its token, its features of an image, its convolutions.

Axes: I images, S prompts, C channels of the decoder, D of the image encoder, g image tokens a side.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


class HqMasks:
    """What transformers' `SamHQMaskDecoder` has beside SAM's; weights are rearranged here and must not change.

    The prompt's part is computed in `dtype`, and the last convolution never whole: a mask is a product of its output
    with the prompt's weights, so these are multiplied with the kernel first and C / 8 maps become one.
    """

    margin = 2
    """Upscaled pixels around a mask that its two 3 x 3 convolutions see."""

    def __init__(self, decoder: Any, dtype: torch.dtype) -> None:
        self._decoder = decoder
        self._dtype = dtype
        self.token: Tensor = decoder.hq_token.weight.detach()
        """The last of the output tokens, [1, C]."""
        network = decoder.hq_mask_mlp
        self.layers = [network.proj_in, *network.layers, network.proj_out]
        """The MLP of the token, like those of the mask tokens."""
        first, norm, second = decoder.mask_conv1, decoder.mask_norm, decoder.mask_conv2
        with torch.no_grad():
            self._first = first.weight.to(dtype).contiguous(memory_format=torch.channels_last), first.bias.to(dtype)
            self._norm = (norm.normalized_shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)
            # Flipped: `fold` takes a pixel's products to its neighbours, where a convolution takes them from there.
            self._second = second.weight.flip(2, 3).flatten(1).clone()
            self._second_bias = second.bias.clone()

    def features(self, embedding_ICgg: Tensor, early_IggD: Tensor | None) -> Tensor:
        """The HQ features of images, [I, C / 8, 4 g, 4 g].

        `early_IggD` is what the encoder's first block of global attention returns; a model without one has None.
        """
        decoder = self._decoder
        features: Tensor = decoder.encoder_conv2(
            decoder.activation(decoder.encoder_norm(decoder.encoder_conv1(embedding_ICgg)))
        )
        if early_IggD is None:
            return features
        early = decoder.compress_vit_conv1(early_IggD.permute(0, 3, 1, 2))
        return features + decoder.compress_vit_conv2(decoder.activation(decoder.compress_vit_norm(early)))

    def logits(self, upscaled_SRCc: Tensor, weights_Sc: Tensor, features_RCc: Tensor) -> Tensor:
        """The HQ masks of S prompts on one image, float32 [S, rows, columns].

        `upscaled_SRCc` [S, rows, columns, C / 8] are the prompts' upscaled image tokens, `weights_Sc` [S, C / 8] what
        `layers` made of their HQ tokens, `features_RCc` [rows, columns, C / 8] the image's `features`. Where the
        upscaled tokens end before the model's square, the outermost `margin` is not what it would be.
        """
        count, rows, columns, _ = upscaled_SRCc.shape
        # A channels-last tensor as torch has them: nothing is moved.
        weight, bias = self._first
        hidden = F.conv2d(upscaled_SRCc.permute(0, 3, 1, 2), weight, bias, padding=1).permute(0, 2, 3, 1)
        hidden = F.gelu(F.layer_norm(hidden, *self._norm)).reshape(count, rows * columns, -1)
        kernels = (weights_Sc @ self._second).view(count, hidden.shape[-1], 9).to(self._dtype)
        products = torch.bmm(hidden, kernels).float()
        masks = F.fold(products.transpose(1, 2), (rows, columns), kernel_size=3, padding=1)[:, 0]
        seen = weights_Sc.to(self._dtype) @ features_RCc.reshape(rows * columns, -1).T
        return masks + seen.float().view(count, rows, columns) + (weights_Sc @ self._second_bias)[:, None, None]
