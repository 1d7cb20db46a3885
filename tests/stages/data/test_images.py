import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from semires.stages.data.errors import InputError
from semires.stages.data.images import (
    MAX_PIXELS,
    Header,
    image_id_of,
    load_image,
    load_mask,
    load_picture,
    picture_suffixes,
    read_header,
    resize_image,
)

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims this size and holds no pixels."""
    body = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", len(body)) + b"IHDR" + body + struct.pack(">I", zlib.crc32(b"IHDR" + body))
    data = struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    return b"\x89PNG\r\n\x1a\n" + chunk + data


def test_load_image__rgb(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.dtype == np.uint8
    assert np.array_equal(image, PIXELS)
    assert image.flags.writeable
    assert np.array_equal(load_image(str(tmp_path / "a.png")), PIXELS)


def test_load_image__exif_orientation_is_not_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=exif, quality=95)
    assert load_image(tmp_path / "a.jpg").shape == (6, 9, 3)


@pytest.mark.parametrize("mode", ["L", "1", "LA", "RGBA", "P"])
def test_load_image__other_modes(tmp_path: Path, mode: str) -> None:
    Image.fromarray(PIXELS).convert(mode).save(tmp_path / "a.png")
    image = load_image(tmp_path / "a.png")
    assert image.shape == (6, 9, 3)
    if mode in ("L", "LA", "1"):
        assert (image[..., 0] == image[..., 1]).all()
        assert (image[..., 0] == image[..., 2]).all()
    if mode == "RGBA":
        assert np.array_equal(image, PIXELS)


def test_load_image__palette_with_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(8)
    palette.save(tmp_path / "a.png", transparency=bytes([0, 128, 255]))
    assert np.array_equal(load_image(tmp_path / "a.png"), np.array(palette.convert("RGB")))


def test_load_image__cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (9, 6), (0, 255, 255, 0)).save(tmp_path / "a.jpg", quality=95)
    image = load_image(tmp_path / "a.jpg")
    assert image.shape == (6, 9, 3)
    assert np.abs(image.astype(int) - [255, 0, 0]).max() < 12


@pytest.mark.parametrize("top", [255, 1023, 4095, 65535])
def test_load_image__16_bit_grey_is_scaled_by_its_own_range(tmp_path: Path, top: int) -> None:
    """Cameras and microscopes fill 10 or 12 bits: of the upper eight, nothing would be left."""
    grey = np.linspace(100, top, 54).round().astype(np.uint16).reshape(6, 9)
    Image.fromarray(grey).save(tmp_path / "a.png")
    picture = load_picture(tmp_path / "a.png")
    assert picture.is_scaled
    assert picture.pixels.dtype == np.uint8
    expected = np.linspace(0, 255, 54).reshape(6, 9)
    assert np.abs(picture.pixels - expected[:, :, None]).max() < 2
    assert read_header(tmp_path / "a.png").is_scaled
    assert not load_picture(write_rgb(tmp_path / "rgb.png")).is_scaled


@pytest.mark.parametrize("name", ["a.png", "interlaced.png", "a.tiff", "packed.tiff", "big-endian.tiff"])
@pytest.mark.parametrize("channels", [3, 4, 2])
def test_load_image__16_bit_colour_is_scaled_by_its_own_range(tmp_path: Path, channels: int, name: str) -> None:
    """Of a microscope's 12 bits Pillow's upper bytes are 0 to 15; of three channels the largest has 255."""
    if channels == 2 and not name.endswith(".png"):
        pytest.skip("Pillow reads no TIFF of grey and alpha of 16 bits")
    deep = np.random.default_rng(0).integers(0, 4096, (6, 9, channels)).astype(np.uint16)
    deep[0, 0, 0], deep[0, 1, 0] = 0, 4095
    write_deep(tmp_path / name, deep)
    picture = load_picture(tmp_path / name)
    colours = deep[:, :, :3] if channels > 2 else deep[:, :, :1].repeat(3, axis=2)
    low, high = int(colours.min()), int(colours.max())
    expected = np.rint((colours.astype(float) - low) * (255 / (high - low)))
    assert picture.is_scaled
    assert read_header(tmp_path / name).is_scaled
    assert picture.pixels.shape == (6, 9, 3)
    assert np.array_equal(picture.pixels, expected)
    with (tmp_path / name).open("rb") as file:
        assert np.array_equal(load_picture(tmp_path / name, file=file).pixels, expected)
    upright = load_picture(tmp_path / name, upright=True)
    assert np.array_equal(upright.pixels, expected)


def test_load_image__16_bit_colour_that_is_cut_off(tmp_path: Path) -> None:
    path = write_deep(tmp_path / "a.png", np.random.default_rng(0).integers(0, 4096, (60, 90, 3)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(InputError, match=r"a\.png: expected an image, found a damaged"):
        load_image(path)


def write_deep(path: Path, deep: np.ndarray) -> Path:
    """Colours of 16 bits a channel, [H, W, 2 to 4], which Pillow does not write."""
    height, width, channels = deep.shape
    if path.suffix == ".png":
        path.write_bytes(png_of(deep, interlaced=path.stem == "interlaced"))
        return path
    order = ">" if path.stem == "big-endian" else "<"
    data = deep.astype(f"{order}u2").tobytes()
    if is_packed := path.stem == "packed":
        data = zlib.compress(data)
    values = {256: width, 257: height, 259: 8 if is_packed else 1, 262: 2, 277: channels, 278: height}
    head = 8
    offset_bits, offset_data = head, head + 2 * channels
    directory = offset_data + len(data) + len(data) % 2
    entries = {**values, 273: offset_data, 279: len(data)}
    rows = [(tag, 4, 1, value) for tag, value in entries.items()] + [(258, 3, channels, offset_bits)]
    if channels == 4:
        rows.append((338, 3, 1, 2 if order == "<" else 2 << 16))
    packed = b"".join(struct.pack(f"{order}HHII", *row) for row in sorted(rows))
    path.write_bytes(
        (b"II*\0" if order == "<" else b"MM\0*")
        + struct.pack(f"{order}I", directory)
        + struct.pack(f"{order}{channels}H", *[16] * channels)
        + data
        + b"\0" * (len(data) % 2)
        + struct.pack(f"{order}H", len(rows))
        + packed
        + struct.pack(f"{order}I", 0)
    )
    return path


def png_of(deep: np.ndarray, *, interlaced: bool = False) -> bytes:
    """A PNG of 16 bits a channel; interlaced by Adam7 (PNG specification, section 8.2)."""
    height, width, channels = deep.shape
    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    images = [deep[top::down, left::right] for top, left, down, right in passes] if interlaced else [deep]
    rows = [b"\0" + row.astype(">u2").tobytes() for image in images if image.size for row in image]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, int(interlaced))
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"".join(rows))) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def write_rgb(path: Path) -> Path:
    Image.fromarray(PIXELS).save(path)
    return path


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.array([[-40_000, 70_000, 15_000]], np.int32), "a.tiff"),
        (np.array([[-1.5, 2.5, 0.5]], np.float32), "a.tiff"),
        (np.array([[-3e38, 3e38, 0]], np.float32), "a.tiff"),
        (np.array([[0, 65535, 32768]], ">u2"), "a.tiff"),
    ],
)
def test_load_image__deep_grey_of_every_kind(tmp_path: Path, values: np.ndarray, name: str) -> None:
    Image.fromarray(values).save(tmp_path / name)
    assert load_image(tmp_path / name)[0].tolist() == [[0] * 3, [255] * 3, [128] * 3]


def test_load_image__depth_without_a_measurement(tmp_path: Path) -> None:
    depth = np.array([[np.nan, 1, 3, np.inf, -np.inf]], np.float32)
    Image.fromarray(depth).save(tmp_path / "a.tiff")
    assert load_image(tmp_path / "a.tiff")[0, :, 0].tolist() == [0, 0, 255, 0, 0]
    for value in (np.nan, 7):
        Image.fromarray(np.full((2, 2), value, np.float32)).save(tmp_path / "a.tiff")
        assert not load_image(tmp_path / "a.tiff").any()


def test_load_image__never_hands_a_file_to_another_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow knows an EPS by its content, whatever its name, and decodes it with Ghostscript."""

    def run(*args: object) -> None:
        raise AssertionError("started Ghostscript")

    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", run)
    Image.fromarray(PIXELS).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.jpg")
    with pytest.raises(InputError, match=r"a\.jpg: expected a picture, found EPS"):
        load_image(tmp_path / "a.jpg")


def test_picture_suffixes__what_pillow_opens() -> None:
    suffixes = picture_suffixes()
    assert {".jpg", ".jpeg", ".jfif", ".png", ".gif", ".jp2", ".webp", ".bmp", ".tif", ".tiff", ".ppm"} <= suffixes
    assert not {".pdf", ".eps", ".mpg", ".h5", ".txt"} & suffixes


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.bmp"])
def test_load_image__cut_off(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (60, 90, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    for share in (0.05, 0.3, 0.7, 0.9):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(InputError, match="damaged or other file") as caught:
            load_image(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html>", b"\xff\xd8\xff\xe0"])
def test_load_image__not_an_image(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.jpg.*damaged or other file \((no format that Pillow knows|[A-Z])"):
        load_image(tmp_path / "a.jpg")


def test_load_image__missing(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.jpg.*found none"):
        load_image(tmp_path / "a.jpg")


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_load_image__decompression_bomb(tmp_path: Path, side: int) -> None:
    assert side**2 > MAX_PIXELS
    (tmp_path / "a.png").write_bytes(png_header(side, side))
    with pytest.raises(InputError, match=rf"a\.png.*at most {MAX_PIXELS} pixels"):
        load_image(tmp_path / "a.png")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_load_image__decompression_bomb_that_pillow_only_warns_about(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png_header(10_000, 10_000))
    with pytest.raises(InputError, match="found 10000 x 10000"):
        load_image(tmp_path / "a.png")


def test_resize_image__aspect_is_not_kept() -> None:
    image = resize_image(PIXELS, 4)
    assert image.shape == (4, 4, 3)
    assert image.dtype == np.uint8
    assert image.flags.writeable
    assert np.array_equal(resize_image(PIXELS[:, :6], 6), PIXELS[:, :6])


def test_resize_image__is_antialiased() -> None:
    stripes = np.zeros((64, 64, 3), dtype=np.uint8)
    stripes[:, ::2] = 255
    small = resize_image(stripes, 8)
    assert np.abs(small[:, 1:-1].astype(int) - 128).max() < 8


def test_image_id_of__stable() -> None:
    # First 63 bits of sha256: these numbers are in stores that people have.
    assert image_id_of(Path("a.jpg")) == int("509b0d4641a7c3ba", 16) >> 1
    assert image_id_of(Path("sub") / "a.jpg") == int("3d2cde3d8f808146", 16) >> 1
    ids = [image_id_of(Path(f"{number}.jpg")) for number in range(1000)]
    assert len(set(ids)) == 1000
    assert all(0 <= image_id < 2**63 for image_id in ids)


def test_image_id_of__names_of_any_bytes() -> None:
    assert image_id_of("bl\udcfcte.jpg") != image_id_of("blüte.jpg")


MASK = PIXELS[..., 0] > 120


def grey(mask: np.ndarray, value: int) -> np.ndarray:
    return mask.astype(np.uint16 if value > 255 else np.uint8) * np.array(value, np.uint16 if value > 255 else np.uint8)


@pytest.mark.parametrize("value", [1, 255, 7, 300, 65535])
def test_load_mask__grey_of_any_value(tmp_path: Path, value: int) -> None:
    Image.fromarray(grey(MASK, value)).save(tmp_path / "m.png")
    found = load_mask(tmp_path / "m.png")
    assert found.dtype == np.bool_
    np.testing.assert_array_equal(found, MASK)


@pytest.mark.parametrize("mode", ["1", "RGB", "P"])
def test_load_mask__other_modes(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(np.repeat(grey(MASK, 255)[..., None], 3, axis=2))
    image = image.quantize(2) if mode == "P" else image.convert(mode)
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), MASK)


@pytest.mark.parametrize("flipped", [False, True])
def test_load_mask__black_is_what_looks_black(tmp_path: Path, flipped: bool) -> None:
    """Which number a palette has for black is its writer's choice."""
    image = Image.new("P", (9, 6))
    image.putdata((~MASK if flipped else MASK).astype(np.uint8).ravel().tolist())
    image.putpalette([255, 0, 0, 0, 0, 0] if flipped else [0, 0, 0, 255, 0, 0])
    image.save(tmp_path / "m.png")
    np.testing.assert_array_equal(load_mask(tmp_path / "m.png"), MASK)


def test_load_mask__colours_of_16_bits(tmp_path: Path) -> None:
    """A label below 256 has nothing in the upper bytes, and two labels may have the same there."""
    mask = np.arange(54).reshape(6, 9) % 3 == 0
    deep = mask[:, :, None] * np.array([0, 7, 7], np.uint16)
    assert np.array_equal(load_mask(write_deep(tmp_path / "a.png", deep)), mask)
    deep[0, 0] = 9
    with pytest.raises(InputError, match="found several"):
        load_mask(write_deep(tmp_path / "a.png", deep))


def test_load_mask__refuses_what_is_not_of_two_values(tmp_path: Path) -> None:
    for name, image, text in (
        ("soft.png", Image.fromarray(grey(MASK, 200) // np.array([[1], [2], [1], [1], [1], [1]], np.uint8)), "several"),
        ("map.png", Image.fromarray(PIXELS), "several"),
        ("alpha.png", Image.fromarray(grey(MASK, 255)).convert("LA"), "transparency"),
        ("mask.jpg", Image.fromarray(grey(MASK, 255)), "expected a mask as PNG, found JPEG"),
    ):
        image.save(tmp_path / name)
        with pytest.raises(InputError, match=text) as caught:
            load_mask(tmp_path / name)
        assert str(caught.value).startswith(f"{tmp_path / name}: ")
    with pytest.raises(InputError, match="expected an image file, found none"):
        load_mask(tmp_path / "none.png")


@pytest.mark.parametrize("upright", [False, True])
@pytest.mark.parametrize("suffix", ["jpg", "png", "tiff", "webp"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
def test_read_header__is_what_is_loaded(tmp_path: Path, suffix: str, orientation: int | None, upright: bool) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(PIXELS).save(path, exif=exif, quality=100)
    found = read_header(path, upright=upright)
    pixels = load_image(path, upright=upright)
    assert found.size == pixels.shape[:2]
    assert found.is_turned == (orientation in range(2, 9) and suffix != "tiff")  # Pillow turns TIFF
    if upright:
        with Image.open(path) as image:
            np.testing.assert_array_equal(pixels, np.array(ImageOps.exif_transpose(image).convert("RGB")))


def test_read_header__of_a_png_decodes_nothing(tmp_path: Path) -> None:
    (tmp_path / "head.png").write_bytes(png_header(30, 20))
    assert read_header(tmp_path / "head.png") == Header(size=(20, 30), is_turned=False, is_scaled=False)
    (tmp_path / "bomb.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(InputError, match="expected an image of at most"):
        read_header(tmp_path / "bomb.png")


@pytest.mark.parametrize("upright", [False, True])
def test_read_header__damaged_exif_is_none(tmp_path: Path, upright: bool) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg", exif=b"Exif\0\0nonsense")
    header = read_header(tmp_path / "a.jpg", upright=upright)
    assert header == Header(size=(6, 9), is_turned=False, is_scaled=False)
    assert load_image(tmp_path / "a.jpg", upright=upright).shape == (6, 9, 3)
