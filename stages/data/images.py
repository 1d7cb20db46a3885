"""Image files as RGB pixels, PNG files as masks.

The EXIF orientation is applied where it is asked for, as for photographs of one's own, and **not** to COCO's: its
polygons and run lengths are drawn in the frame of the stored pixels, so turning a photograph that carries an
orientation would turn it away from its masks. Colour profiles are not applied, as in the public code.
"""

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.ImageFile import ImageFile

from semires.stages.data.errors import InputError

# Pillow's own threshold for a suspected decompression bomb: a quarter GiB of RGB. Pillow only warns between once and
# twice this size; here it is a refusal.
MAX_PIXELS = 1024 * 1024 * 1024 // 4 // 3

# What Pillow knows by name and has no pixels of, or hands to another program (EPS to Ghostscript).
_NO_PICTURES = frozenset({"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF"})

_ORIENTATION = 0x0112  # EXIF's tag; 1 is upright
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = (5, 6, 7, 8)

# Of colours of 16 bits a channel Pillow keeps the upper bytes. Read in the other byte order it keeps the lower ones.
_DEEP_COLOUR = re.compile(r"(RGB|RGBX|RGBA);16[BLN]")
_OTHER_ORDER = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
_DEEP_GREY_WITH_ALPHA = "LA;16B"  # four bytes a pixel: the first two are the grey

ReadT = TypeVar("ReadT")


@dataclass(frozen=True, kw_only=True, eq=False)
class Picture:
    """The pixels of an image file, uint8 [H, W, 3], RGB, and whether they were scaled: the file has more than 8 bits a
    pixel, and its own range became 0 to 255."""

    pixels: NDArray[np.uint8]
    is_scaled: bool


@dataclass(frozen=True, kw_only=True)
class Header:
    """What the head of an image file tells of the picture: (height, width) in pixels, whether its EXIF orientation asks
    for another than the stored one, and whether it is scaled as `Picture` says."""

    size: tuple[int, int]
    is_turned: bool
    is_scaled: bool


@functools.cache
def picture_suffixes() -> frozenset[str]:
    """Endings, such as ".jpg", of the formats that Pillow can open here; a plugin that is registered counts too."""
    Image.init()
    endings = Image.registered_extensions().items()
    return frozenset(suffix for suffix, name in endings if name in Image.OPEN and name not in _NO_PICTURES)


def load_image(path: Path | str, *, upright: bool = False) -> NDArray[np.uint8]:
    """The image at `path`, uint8 [H, W, 3], RGB, in the orientation the file stores; `upright`: as cameras and viewers
    show it, turned by its EXIF orientation.

    Grey, palette and CMYK are converted; transparency is dropped. Grey of 16 or 32 bits or of floating point, and RGB
    of 16 bits a channel, is scaled so that its own range, of all channels together, becomes 0 to 255 (what is not
    finite: 0): cameras and microscopes use as many of the bits as they have. Of several frames it is the first.

    Raises `InputError`, naming the file, when it is missing, not an image, cut off or damaged, or larger than
    `MAX_PIXELS` pixels.
    """
    return load_picture(path, upright=upright).pixels


def load_picture(path: Path | str, *, upright: bool = False, file: BinaryIO | None = None) -> Picture:
    """`load_image` with what was done to the pixels. file: the one at `path`, where it is open already."""
    return _read(Path(path), _to_upright if upright else _to_rgb, file)


def load_mask(path: Path | str) -> NDArray[np.bool_]:
    """The mask in the PNG at `path`, bool [H, W]: what is not black is in it.

    Grey (1, 8 or 16 bits), palette and RGB (8 or 16); beside black there may be one value only: what has several may be
    a map of many objects, or soft edges, and which of them are meant nobody knows.

    Raises `InputError` as `load_image` does, and for a file that is no PNG (JPEG's black is not black), that has
    transparency, or more than two values.
    """
    return _read(Path(path), _to_mask)


def read_header(path: Path | str, *, upright: bool = False) -> Header:
    """What is to be known of the image at `path`, as `load_image` gives it, before any pixel is decoded. Raises
    `InputError` as `load_image` does for what a file's head tells."""
    return _read(Path(path), _to_upright_header if upright else _to_header)


def _read(path: Path, convert: Callable[[ImageFile, Path], ReadT], file: BinaryIO | None = None) -> ReadT:
    """What `convert` makes of an open image file; InputError, naming the file, for all that goes wrong."""
    try:
        with Image.open(path if file is None else file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise _too_large(path, f"{image.width} x {image.height}")
            if image.format in _NO_PICTURES:
                raise InputError(f"{path}: expected a picture, found {image.format}; save it as PNG or JPEG")
            return convert(image, path)
    except InputError:
        raise
    except FileNotFoundError as error:
        raise no_file(path) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(path, "more") from error
    except Exception as error:  # on damaged files Pillow's decoders raise far more than OSError
        is_other = isinstance(error, UnidentifiedImageError)  # whose text is of our open file
        reason = "no format that Pillow knows" if is_other else " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: expected an image, found a damaged or other file ({reason}); download or copy it again"
        ) from error


def no_file(path: Path) -> InputError:
    """The error for an image file that is not there."""
    return InputError(f"{path}: expected an image file, found none; check the path")


def load_image_of_size(path: Path | str, size: tuple[int, int], *, upright: bool = False) -> NDArray[np.uint8]:
    """`load_image` of a file whose `size`, (height, width) in pixels, a data set records.

    Raises `InputError` as `load_image` does, and for an image of another size.
    """
    pixels = load_image(path, upright=upright)
    if pixels.shape[:2] != size:
        raise InputError(
            f"{path}: expected {size} pixels (height, width) as in instances.json, found {pixels.shape[:2]}; the masks "
            "need the original file, not resized or turned"
        )
    return pixels


def _too_large(path: Path, found: str) -> InputError:
    return InputError(f"{path}: expected an image of at most {MAX_PIXELS} pixels, found {found}; scale it down")


def _to_upright(image: ImageFile, path: Path) -> Picture:
    turn = _TURNS.get(_orientation(image))
    picture = _to_rgb(image, path)
    if turn is None:
        return picture
    return Picture(pixels=np.array(Image.fromarray(picture.pixels).transpose(turn)), is_scaled=picture.is_scaled)


def _to_rgb(image: ImageFile, path: Path) -> Picture:
    if _is_deep_colour(image):
        return Picture(pixels=_scale(_deep_colour(image)), is_scaled=True)
    if _is_deep_grey(image):
        return Picture(pixels=np.repeat(_scale(np.asarray(image))[:, :, None], 3, axis=2), is_scaled=True)
    # Straight to RGB, Pillow warns about palettes with several transparent colours.
    converted = image.convert("RGBA") if "transparency" in image.info else image
    # np.array copies: the view np.asarray gives is read-only, and torch warns about those.
    return Picture(pixels=np.array(converted.convert("RGB")), is_scaled=False)


def _is_deep_grey(image: Image.Image) -> bool:
    """Whether Pillow would clip the grey values at 255, which turns nearly everything white."""
    return image.mode == "F" or image.mode.startswith("I")


def _is_deep_colour(image: ImageFile) -> bool:
    """Whether Pillow would keep the upper bytes of each channel alone, which turns 10 or 12 bits nearly black: of an
    image that is not decoded yet."""
    raw_modes = {_raw_mode(tile) for tile in image.tile}
    return any(raw == _DEEP_GREY_WITH_ALPHA or _DEEP_COLOUR.fullmatch(raw) for raw in raw_modes)


def _raw_mode(tile: Any) -> str:
    """How the bytes of a tile are laid out, in Pillow's words; its decoders take it alone or before other arguments."""
    args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)  # other plugins' tiles have no names
    return args[0] if args and isinstance(args[0], str) else ""


def _with_raw_mode(tile: Any, raw_mode: str) -> Any:
    return tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)


def _deep_colour(image: ImageFile) -> NDArray[np.uint16]:
    """The colours of an image of 16 bits a channel, [H, W, 3]: decoded twice, as Pillow has no mode for them."""

    def decoded(raw_mode: Callable[[str], str]) -> NDArray[np.uint16]:
        file = image.fp
        assert file is not None, "the image is open"
        file.seek(0)
        with Image.open(file) as again:  # which leaves a file that it did not open itself open
            again.tile = [_with_raw_mode(tile, raw_mode(_raw_mode(tile))) for tile in again.tile]
            return np.array(again).astype(np.uint16)

    if _raw_mode(image.tile[0]) == _DEEP_GREY_WITH_ALPHA:
        pixels = decoded(lambda _: "RGBA")
        return np.repeat(pixels[:, :, :1] << 8 | pixels[:, :, 1:2], 3, axis=2)
    upper, lower = decoded(lambda raw: raw), decoded(lambda raw: raw[:-1] + _OTHER_ORDER[raw[-1]])
    return np.bitwise_or(upper[:, :, :3] << 8, lower[:, :, :3], dtype=np.uint16)


def _scale(deep: NDArray[np.generic]) -> NDArray[np.uint8]:
    """Values of any kind with their own range as 0 to 255; all 0 where there is one value only."""
    values = deep.astype(np.float64)
    finite = np.isfinite(values)
    low, high = (values[finite].min(), values[finite].max()) if finite.any() else (0.0, 0.0)
    if high == low:
        return np.zeros(deep.shape, np.uint8)
    return np.rint(np.where(finite, (values - low) * (255 / (high - low)), 0)).astype(np.uint8)


def _to_mask(image: ImageFile, path: Path) -> NDArray[np.bool_]:
    if image.format != "PNG":
        raise InputError(f"{path}: expected a mask as PNG, found {image.format}; save it as PNG")
    if image.mode in ("LA", "PA", "RGBA") or "transparency" in image.info:
        raise InputError(f"{path}: expected a mask in black and one other value, found transparency; save it without")
    pixels: NDArray[Any]
    if _is_deep_colour(image):
        pixels = _deep_colour(image)
    else:  # black is what looks black: writers order palettes as they like
        pixels = np.asarray(image.convert("RGB") if image.mode == "P" else image)
    mask = np.asarray(pixels != 0 if pixels.ndim == 2 else pixels.any(axis=2))
    values = pixels[mask]
    if len(values) and (values != values[0]).any():
        raise InputError(
            f"{path}: expected a mask in black and one other value, found several; one file an object, without soft "
            "edges"
        )
    return mask


def _orientation(image: Image.Image) -> int:
    """EXIF's, 1 where there is none: of an image that is not decoded yet."""
    if image.format == "TIFF":  # which Pillow turns itself
        return 1
    try:
        # The base class's: that of PNG looks behind the pixels too, which decodes them.
        found = Image.Image.getexif(image).get(_ORIENTATION, 1)
    except Exception:  # on damaged EXIF Pillow raises this and that; the pixels are none the worse
        return 1
    return found if found in _TURNS else 1


def _to_header(image: ImageFile, path: Path) -> Header:
    size = image.height, image.width
    return Header(
        size=size, is_turned=_orientation(image) != 1, is_scaled=_is_deep_grey(image) or _is_deep_colour(image)
    )


def _to_upright_header(image: ImageFile, path: Path) -> Header:
    header = _to_header(image, path)
    size = header.size[::-1] if _orientation(image) in _QUARTER_TURNS else header.size
    return Header(size=size, is_turned=header.is_turned, is_scaled=header.is_scaled)


def image_id_of(relative_path: Path | str) -> int:
    """The id of an image that nobody has numbered: the first 63 bits of the sha256 of its path below the folder.

    It depends on the name alone, so that images that come later renumber nothing.
    """
    # The file system's own bytes: a name need not be UTF-8.
    name = os.fsencode(Path(relative_path).as_posix())
    return int.from_bytes(hashlib.sha256(name).digest()[:8], "big") >> 1


def resize_image(image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """`image`, uint8 [H, W, 3], at uint8 [size, size, 3]: bilinear, antialiased, aspect not kept (paper: 480x480)."""
    return np.array(Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR))
