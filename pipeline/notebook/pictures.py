"""An image as a notebook has it: a path, one of Pillow's, or an array."""

from os import PathLike
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image

Picture: TypeAlias = str | PathLike[str] | Image.Image | NDArray[np.uint8]
"""A file's path, an image of Pillow's, or RGB as uint8 [H, W, 3]."""


def pixels_of(image: Picture) -> NDArray[np.uint8]:
    """The image's RGB, uint8 [H, W, 3]; a file is turned upright by its EXIF orientation, as viewers show it.

    InputError for a file that is no image, and for an array of another form.
    """
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if isinstance(image, str | PathLike):
        return load_image(str(image), upright=True)
    pixels = np.asarray(image)
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise InputError(
            f"expected an image as a path, one of Pillow's or RGB as uint8 [H, W, 3], found {pixels.dtype} "
            f"{list(pixels.shape)}: convert it"
        )
    return pixels
