"""The mask of what an expression means, in any image."""

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
def predict_mask(model: ResModel, image: NDArray[np.uint8], expression: str, device: torch.device) -> NDArray[np.bool_]:
    """Mask bool [H, W] of the referent in an RGB image uint8 [H, W, 3] of any size; all False if nothing is meant.

    The model sees the image at its training size; its logits are scaled back bilinearly. InputError for an empty
    expression.
    """
    if not expression.strip():
        raise InputError('expected an expression such as "left girl in red", found an empty one')
    pixels = torch.from_numpy(resize_image(image, model.image_size)).permute(2, 0, 1)[None]
    input_ids, attention_mask = model.tokenizer([expression])
    logits = model(normalize(pixels.to(device).float() / 255), input_ids.to(device), attention_mask.to(device))
    height, width = image.shape[:2]
    mask: NDArray[np.bool_] = scaled_masks(logits, height, width)[0].cpu().numpy()
    return mask


def scaled_masks(logits: Tensor, height: int, width: int) -> Tensor:
    """What logits float [B, 2, S, S] mean at another size, bool [B, height, width]: they are scaled bilinearly, then
    the referent is where its channel is the higher one."""
    scaled = F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False)
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
