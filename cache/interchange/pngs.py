"""PNG files of masks: looked at before they are decoded, and decoded to whole numbers."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.cache.errors import StoreError
from semires.cache.interchange.files import bad_file, parse_size

_SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Up to width, height, bits and kind of colour.
_HEAD = 26

_MAX_PIXELS = Image.MAX_IMAGE_PIXELS or 2**28
"""Pillow's own threshold, above which it warns of what a small file may become."""


def png_size(path: Path) -> tuple[int, int]:
    """(height, width) in pixels, by the file's first bytes; StoreError where it is no PNG or too large."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD)
    except OSError as error:
        raise bad_file(path, "", "a PNG file", f"{error.strerror or type(error).__name__}") from error
    if len(head) < _HEAD or not head.startswith(_SIGNATURE) or head[12:16] != b"IHDR":
        raise bad_file(path, "", "a PNG file", "another, or a damaged one")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:])
    if height * width > _MAX_PIXELS:
        raise bad_file(path, "", f"an image of at most {_MAX_PIXELS} pixels", f"{height} x {width}")
    if depth == 16 and colour != 0:  # Pillow would keep the upper halves
        raise bad_file(path, "", "grey, or colours of 8 bits", "colours of 16 bits", "save it as 16-bit grey")
    return parse_size(path, "", height, width)


def read_png(path: Path, *, by_colour: bool) -> NDArray[Any]:
    """The whole number at each pixel of a PNG, [H, W]: grey (1 to 16 bits) as it is, of colours the COCO panoptic one,
    red + 256 green + 65536 blue. A palette's index, or with `by_colour` the number of its colour: writers order
    palettes as they like, but where labels are meant the index is the label.

    StoreError as `png_size`, for transparency, and for a file that is cut off or damaged.
    """
    size = png_size(path)
    try:
        with Image.open(path, formats=["PNG"]) as image:
            if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
                raise bad_file(path, "", "a PNG of whole numbers", "transparency", "save it without")
            is_read_by_colour = image.mode == "P" and by_colour
            pixels = np.asarray(image.convert("RGB") if is_read_by_colour else image)
    except StoreError:
        raise
    except Exception as error:  # on damaged files Pillow's decoders raise far more than OSError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise bad_file(path, "", "a PNG file", f"a damaged one ({reason})") from error
    if pixels.ndim == 3:
        pixels = pixels[:, :, 0] + pixels[:, :, 1] * np.int32(256) + pixels[:, :, 2] * np.int32(65536)
    if pixels.shape != size:
        raise bad_file(path, "", f"the {size[0]} x {size[1]} pixels that the file begins with", f"{pixels.shape}")
    return pixels.astype(np.uint8) if pixels.dtype == np.bool_ else pixels
