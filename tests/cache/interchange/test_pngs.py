import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.cache.errors import StoreError
from semires.cache.interchange.pngs import png_size, read_png

LABELS = np.array([[0, 1, 2], [200, 0, 1]], np.uint8)


def save(path: Path, pixels: np.ndarray, mode: str | None = None) -> Path:
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(path)
    return path


def test_read_png__grey_of_every_depth(tmp_path: Path) -> None:
    assert read_png(save(tmp_path / "8.png", LABELS), by_colour=False).tolist() == LABELS.tolist()
    deep = LABELS.astype(np.uint16) * 300
    assert read_png(save(tmp_path / "16.png", deep), by_colour=False).tolist() == deep.tolist()
    bits = read_png(save(tmp_path / "1.png", LABELS > 1), by_colour=False)
    assert (bits.dtype, bits.tolist()) == (np.uint8, [[0, 0, 1], [1, 0, 0]])


def test_read_png__colours_are_cocos_panoptic_numbers(tmp_path: Path) -> None:
    colours = np.zeros((2, 3, 3), np.uint8)
    colours[0, 1], colours[1, 2] = (3, 2, 1), (255, 255, 255)
    expected = [[0, 3 + 2 * 256 + 65536, 0], [0, 0, 2**24 - 1]]
    assert read_png(save(tmp_path / "x.png", colours), by_colour=False).tolist() == expected


def test_read_png__a_palettes_index_or_its_colour(tmp_path: Path) -> None:
    image = Image.fromarray(LABELS % 3, mode=None).convert("P")
    image.putpalette([255, 0, 0, 0, 0, 0, 0, 0, 1])
    image.save(tmp_path / "x.png")
    assert read_png(tmp_path / "x.png", by_colour=False).tolist() == (LABELS % 3).tolist()
    assert read_png(tmp_path / "x.png", by_colour=True).tolist() == [[255, 0, 65536], [65536, 255, 0]]


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_read_png__transparency(tmp_path: Path, mode: str) -> None:
    with pytest.raises(StoreError, match=r"x\.png: expected a PNG of whole numbers, found transparency; save it"):
        read_png(save(tmp_path / "x.png", LABELS, mode), by_colour=True)


def test_read_png__damaged(tmp_path: Path) -> None:
    whole = save(tmp_path / "x.png", np.arange(6000, dtype=np.uint16).reshape(60, 100)).read_bytes()
    (tmp_path / "x.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StoreError, match=r"x\.png: expected a PNG file, found a damaged one \(OSError") as caught:
        read_png(tmp_path / "x.png", by_colour=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "expected a PNG file, found another, or a damaged one"),
        (b"\xff\xd8\xff\xe0 a JPEG of some length that is none", "expected a PNG file, found another"),
        ((2**31 - 1, 2**31 - 1, 8, 0), "expected an image of at most 89478485 pixels, found 2147483647 x 2147483647"),
        ((0, 5, 8, 0), "expected a width of 1 to 32768 pixels, found 0"),
        ((4, 5, 16, 2), "expected grey, or colours of 8 bits, found colours of 16 bits; save it as 16-bit grey"),
    ],
)
def test_png_size__refused_by_its_first_bytes(tmp_path: Path, content: object, message: str) -> None:
    if isinstance(content, tuple):
        content = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBB", *content)
    assert isinstance(content, bytes)
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(StoreError, match=rf"x\.png: {message}"):
        png_size(tmp_path / "x.png")


def test_png_size__missing(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"x\.png: expected a PNG file, found No such file"):
        png_size(tmp_path / "x.png")
