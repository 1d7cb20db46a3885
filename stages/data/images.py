"""Image files as RGB pixels.

The EXIF orientation is **not** applied: COCO's polygons and run lengths are drawn in the frame of the stored pixels, so
turning a photograph that carries an orientation would turn it away from its masks. Colour profiles are not applied
either, as in the public code.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.stages.data.errors import InputError

# Pillow's own threshold for a suspected decompression bomb: a quarter GiB of RGB. Pillow only warns between once and
# twice this size; here it is a refusal.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3


def load_image(path: Path | str) -> NDArray[np.uint8]:
    """The image at `path`, uint8 [H, W, 3], RGB, in the orientation the file stores.

    Grey, palette, CMYK and 16-bit images are converted (of 16 bits the upper eight are kept); transparency is dropped.

    Raises `InputError`, naming the file, when it is missing, not an image, cut off or damaged, of floating-point or of
    more than 16-bit pixels, or larger than `MAX_PIXELS` pixels.
    """
    path = Path(path)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width} x {image.height}")
            return _to_rgb(image, path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise InputError(f"{path}: expected an image file, found none; check the path") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "more") from error
    except Exception as error:  # on damaged files Pillow's decoders raise far more than OSError
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: expected an image, found a damaged or other file ({reason}); download or copy it again"
        ) from error


def load_image_of_size(path: Path | str, size: tuple[int, int]) -> NDArray[np.uint8]:
    """`load_image` of a file whose `size`, (height, width) in pixels, a data set records.

    Raises `InputError` as `load_image` does, and for an image of another size.
    """
    pixels = load_image(path)
    if pixels.shape[:2] != size:
        raise InputError(
            f"{path}: expected {size} pixels (height, width) as in instances.json, found {pixels.shape[:2]}; the masks "
            "need the original file, not resized or turned"
        )
    return pixels


def _too_large(path: Path, found: str) -> InputError:
    return InputError(f"{path}: expected an image of at most {MAX_PIXELS} pixels, found {found}; scale it down")


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    if image.mode == "F":
        raise InputError(f"{path}: expected whole-number pixels, found floating point; save it as 8-bit PNG or JPEG")
    if image.mode.startswith("I"):
        # Pillow would clip 16-bit grey at 255, which turns nearly everything white.
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65_535:
            raise InputError(f"{path}: expected at most 16 bits a pixel, found more; save it as 8-bit PNG or JPEG")
        return np.repeat((grey >> 8).astype(np.uint8)[:, :, None], 3, axis=2)
    if "transparency" in image.info:
        image = image.convert("RGBA")  # straight to RGB, Pillow warns about palettes with several transparent colours
    # np.array copies: the view np.asarray gives is read-only, and torch warns about those.
    return np.array(image.convert("RGB"))


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image`, uint8 [H, W, 3], at uint8 [size, size, 3]: bilinear, antialiased, aspect not kept (paper: 480x480)."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
