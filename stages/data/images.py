"""Image files as RGB pixels, PNG files as masks.

The EXIF orientation is **not** applied unless asked for: COCO's polygons and run lengths are drawn in the frame of the
stored pixels, so turning a photograph that carries an orientation would turn it away from its masks. Colour profiles
are not applied either, as in the public code.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from semires.stages.data.errors import InputError

# Pillow's own threshold for a suspected decompression bomb: a quarter GiB of RGB. Pillow only warns between once and
# twice this size; here it is a refusal.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright

ReadT = TypeVar("ReadT")


def load_image(path: Path | str, *, upright: bool = False) -> NDArray[np.uint8]:
    """The image at `path`, uint8 [H, W, 3], RGB, in the orientation the file stores; `upright`: as cameras and viewers
    show it, turned by its EXIF orientation.

    Grey, palette, CMYK and 16-bit images are converted (of 16 bits the upper eight are kept); transparency is dropped.

    Raises `InputError`, naming the file, when it is missing, not an image, cut off or damaged, of floating-point or of
    more than 16-bit pixels, or larger than `MAX_PIXELS` pixels.
    """
    return _read(Path(path), _to_upright_rgb if upright else _to_rgb)


def load_mask(path: Path | str) -> NDArray[np.bool_]:
    """The mask in the PNG at `path`, bool [H, W]: what is not black is in it.

    Grey (1, 8 or 16 bits), palette and RGB; beside black there may be one value only: what has several may be a map of
    many objects, or soft edges, and which of them are meant nobody knows.

    Raises `InputError` as `load_image` does, and for a file that is no PNG (JPEG's black is not black), that has
    transparency, or more than two values.
    """
    return _read(Path(path), _to_mask)


def read_header(path: Path | str) -> tuple[tuple[int, int], bool]:
    """(height, width) in pixels of the image at `path` as `load_image` gives it, and whether its EXIF orientation asks
    for another one; no pixel is decoded. Raises `InputError` as `load_image` does for what a file's head tells."""
    return _read(Path(path), _to_header)


def _read(path: Path, convert: Callable[[Image.Image, Path], ReadT]) -> ReadT:
    """What `convert` makes of an open image file; InputError, naming the file, for all that goes wrong."""
    try:
        with Image.open(path) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width} x {image.height}")
            return convert(image, path)
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


def _to_upright_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    return _to_rgb(ImageOps.exif_transpose(image), path)


def _refuse_floats(image: Image.Image, path: Path) -> None:
    if image.mode == "F":
        raise InputError(f"{path}: expected whole-number pixels, found floating point; save it as 8-bit PNG or JPEG")


def _to_rgb(image: Image.Image, path: Path) -> NDArray[np.uint8]:
    _refuse_floats(image, path)
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


def _to_mask(image: Image.Image, path: Path) -> NDArray[np.bool_]:
    if image.format != "PNG":
        raise InputError(f"{path}: expected a mask as PNG, found {image.format}; save it as PNG")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        raise InputError(f"{path}: expected a mask in black and one other value, found transparency; save it without")
    if image.mode == "P":  # black is what looks black: writers order palettes as they like
        image = image.convert("RGB")
    pixels = np.asarray(image)
    mask = np.asarray(pixels != 0 if pixels.ndim == 2 else pixels.any(axis=2))
    values = pixels[mask]
    if len(values) and (values != values[0]).any():
        raise InputError(
            f"{path}: expected a mask in black and one other value, found several; one file an object, without soft "
            "edges"
        )
    return mask


def _to_header(image: Image.Image, path: Path) -> tuple[tuple[int, int], bool]:
    _refuse_floats(image, path)
    try:
        # The base class's: that of PNG looks behind the pixels too, which decodes them. TIFF Pillow turns itself.
        is_turned = image.format != "TIFF" and Image.Image.getexif(image).get(_ORIENTATION, 1) not in (0, 1)
    except Exception:  # on damaged EXIF Pillow raises this and that; the pixels are none the worse
        is_turned = False
    return (image.height, image.width), is_turned


def image_id_of(relative_path: Path | str) -> int:
    """The id of an image that nobody has numbered: the first 63 bits of the sha256 of its path below the folder.

    It depends on the name alone, so that images that come later renumber nothing.
    """
    # Bytes of a name that are not UTF-8 are surrogates in Python's text.
    name = Path(relative_path).as_posix().encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image`, uint8 [H, W, 3], at uint8 [size, size, 3]: bilinear, antialiased, aspect not kept (paper: 480x480)."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
