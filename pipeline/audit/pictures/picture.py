"""Encoded pictures of an image and of masks over it.

Axes: H, W an image's sides, S side of the training images.
"""

import io
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from semires.pipeline.reporting.contact_sheet import resized_masks
from semires.stages.data.refer import ReferDataset
from semires.stages.train.prediction import overlay

Kind = Literal["image", "candidates", "label", "refined", "prediction", "truth"]

LONGEST = 256  # pixels of a picture's longer side
QUALITY = 80


@dataclass(frozen=True, kw_only=True)
class Picture:
    """An encoded picture. kind: what it shows; alt: the same in words, none of them a user's."""

    kind: Kind
    mime: str
    content: bytes
    alt: str


def small_image(dataset: ReferDataset, image_id: int) -> NDArray[np.uint8]:
    """The image, uint8 [H, W, 3], its longer side `LONGEST` pixels, the aspect kept; smaller ones are enlarged, so that
    a mask's rim is a thin line on them too."""
    image = Image.fromarray(dataset.image(image_id))
    return np.array(ImageOps.contain(image, (LONGEST, LONGEST), Image.Resampling.BILINEAR))


def masked(kind: Kind, image: NDArray[np.uint8], mask: Tensor, alt: str) -> Picture:
    """The image with a mask, bool [S, S], over it."""
    height, width = image.shape[:2]
    return picture(kind, overlay(image, resized_masks([mask.numpy()], (height, width))[0]), alt)


def picture(kind: Kind, image: Image.Image, alt: str) -> Picture:
    """The encoded picture: WebP, which all browsers of today show, a third smaller than JPEG."""
    file = io.BytesIO()
    image.save(file, "WEBP", quality=QUALITY)
    return Picture(kind=kind, mime="image/webp", content=file.getvalue(), alt=alt)


def share_text(mask: Tensor) -> str:
    """How much of the image a mask, bool [S, S], covers."""
    return f"{100 * float(mask.float().mean()):.1f}% of the image"
