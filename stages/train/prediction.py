"""What an expression means in any image: logits, at the image's size too, and a picture of a mask."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from semires.stages.data.errors import InputError
from semires.stages.data.images import resize_image
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.normalization import normalize

OVERLAY_COLOR = (255, 40, 40)


@torch.inference_mode()
def predict_logits(model: ResModel, pairs: Sequence[tuple[NDArray[np.uint8], str]], device: torch.device) -> Tensor:
    """Logits float32 [B, 2, S, S] (background, referent) of B >= 1 pairs of an RGB image uint8 [H, W, 3], of any size,
    and an expression, on the device; one forward pass for all.

    The model sees the images at its training size S, and these are its logits there: `scaled_logits` gives an image's
    own size. InputError for an empty expression.
    """
    for _, expression in pairs:
        if not expression.strip():
            raise InputError('expected an expression such as "left girl in red", found an empty one')
    images = {id(image): image for image, _ in pairs}  # several expressions may be about one
    resized = {key: resize_image(image, model.image_size) for key, image in images.items()}
    pixels = torch.from_numpy(np.stack([resized[id(image)] for image, _ in pairs])).permute(0, 3, 1, 2)
    input_ids, attention_mask = model.tokenizer([expression for _, expression in pairs])
    logits: Tensor = model(normalize(pixels.to(device).float() / 255), input_ids.to(device), attention_mask.to(device))
    return logits.float()


def scaled_logits(logits: Tensor, height: int, width: int) -> Tensor:
    """Logits float [B, 2, S, S] at another size, float32 [B, 2, height, width]: scaled bilinearly."""
    return F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)


def scaled_masks(logits: Tensor, height: int, width: int) -> Tensor:
    """What logits float [B, 2, S, S] mean at another size, bool [B, height, width]: the referent is where its channel
    is the higher one."""
    scaled = scaled_logits(logits, height, width)
    return scaled[:, 1] > scaled[:, 0]


def overlay(
    image: NDArray[np.uint8], mask: NDArray[np.bool_], color: tuple[int, int, int] = OVERLAY_COLOR
) -> Image.Image:
    """The image with the mask tinted over it and its rim drawn; everything else dimmed to grey."""
    picture = image.astype(np.float32)
    grey = picture.mean(axis=2, keepdims=True) * 0.5 + 40
    tinted = picture * 0.6 + np.array(color, dtype=np.float32) * 0.4
    picture = np.where(mask[..., None], tinted, grey * 0.6 + picture * 0.4)
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    picture[mask & ~inner] = color
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))
