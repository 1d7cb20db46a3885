import hashlib
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from semires.stages.cache_sam import loading
from semires.stages.cache_sam.loading import LoadedImage, decode, load_ahead
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.data.images import Picture, load_image

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def jpeg(path: Path) -> None:
    Image.fromarray(NOISE).save(path, "JPEG")


def truncated(path: Path) -> None:
    jpeg(path)
    path.write_bytes(path.read_bytes()[:-80])


def not_an_image(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def zero_bytes(path: Path) -> None:
    path.write_bytes(b"")


def bomb(path: Path) -> None:
    """A PNG that says it is 60,000 x 60,000, in 80 bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(9)))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b""))


def missing(path: Path) -> None:
    pass


def cmyk(path: Path) -> None:
    Image.fromarray(NOISE).convert("CMYK").save(path, "JPEG")


def grey(path: Path) -> None:
    Image.fromarray(NOISE[:, :, 0]).save(path, "JPEG")


def grey_16_bit(path: Path) -> None:
    Image.fromarray(NOISE[:, :, 0].astype(np.uint16) * 257).save(path, "PNG")


def rotated(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(path, "JPEG", exif=exif)


def palette(path: Path) -> None:
    image = Image.fromarray(NOISE).quantize(16)
    image.save(path, "PNG", transparency=bytes([0, 128] + [255] * 14))


@pytest.mark.parametrize("write", [jpeg, cmyk, grey, grey_16_bit, rotated, palette])
def test_decode__as_training_does(tmp_path: Path, write: Callable[[Path], None]) -> None:
    write(tmp_path / "a.jpg")
    loaded = decode(ImageSource(image_id=1, path=tmp_path / "a.jpg", size=(12, 20)))
    assert loaded.reason == ""
    assert loaded.pixels is not None
    assert loaded.pixels.shape == (12, 20, 3)
    np.testing.assert_array_equal(loaded.pixels, load_image(tmp_path / "a.jpg"))
    assert loaded.is_scaled == (write is grey_16_bit)
    assert loaded.record is not None
    content, status = (tmp_path / "a.jpg").read_bytes(), (tmp_path / "a.jpg").stat()
    assert loaded.record.sha256 == hashlib.sha256(content).hexdigest()
    assert (loaded.record.num_bytes, loaded.record.mtime_ns) == (len(content), status.st_mtime_ns)


def test_decode__upright(tmp_path: Path) -> None:
    rotated(tmp_path / "a.jpg")
    loaded = decode(ImageSource(image_id=1, path=tmp_path / "a.jpg", size=(20, 12), upright=True))
    assert loaded.pixels is not None
    np.testing.assert_array_equal(loaded.pixels, load_image(tmp_path / "a.jpg", upright=True))


def test_decode__a_file_that_changes_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its record would not be of what was decoded."""
    jpeg(tmp_path / "a.jpg")
    original = loading.load_picture

    def load(*args: Any, **kwargs: Any) -> Picture:
        picture = original(*args, **kwargs)
        with (tmp_path / "a.jpg").open("ab") as file:
            file.write(b"more")
        return picture

    monkeypatch.setattr(loading, "load_picture", load)
    loaded = decode(ImageSource(image_id=1, path=tmp_path / "a.jpg"))
    assert loaded.reason == (
        "expected a file that can be read, found it changed while it was read; run the command again"
    )


@pytest.mark.parametrize(
    ("write", "text"),
    [
        (truncated, "truncated"),
        (not_an_image, "no format that Pillow knows"),
        (zero_bytes, "no format that Pillow knows"),
        (bomb, "expected an image of at most"),
        (missing, "found none"),
    ],
)
def test_decode__set_aside(tmp_path: Path, write: Callable[[Path], None], text: str) -> None:
    write(tmp_path / "a.jpg")
    loaded = decode(ImageSource(image_id=1, path=tmp_path / "a.jpg"))
    assert loaded.pixels is None
    assert text in loaded.reason
    # It goes into a store that others get: no folder of this machine, and one line.
    assert str(tmp_path) not in loaded.reason
    assert "\n" not in loaded.reason


def test_decode__of_another_size_than_recorded(tmp_path: Path) -> None:
    jpeg(tmp_path / "a.jpg")
    loaded = decode(ImageSource(image_id=1, path=tmp_path / "a.jpg", size=(20, 12)))
    assert loaded.pixels is None
    assert "expected (20, 12) pixels (height, width) as recorded, found (12, 20)" in loaded.reason


def sources(number: int) -> list[ImageSource]:
    return [ImageSource(image_id=image_id, path=Path(f"{image_id}.jpg")) for image_id in range(number)]


def holding(number: int) -> Callable[[], int]:
    return lambda: number


def photograph(source: ImageSource, num_pixels: int = 4) -> LoadedImage:
    return LoadedImage(source=source, pixels=np.broadcast_to(np.uint8(0), (1, num_pixels, 3)))


def test_load_ahead__in_order_in_another_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = set()

    def note(source: ImageSource) -> LoadedImage:
        threads.add(threading.current_thread())
        return LoadedImage(source=source)

    monkeypatch.setattr(loading, "decode", note)
    batches = [[image.source for image in batch] for batch in load_ahead(sources(7), 3, holding(6))]
    assert batches == [sources(7)[:3], sources(7)[3:6], sources(7)[6:]]
    assert len(threads) == 1
    assert threading.current_thread() not in threads
    assert list(load_ahead([], 2, holding(4))) == []


def test_load_ahead__draws_no_more_than_it_may_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw() -> Iterator[ImageSource]:
        for source in sources(10):
            drawn.append(source.image_id)
            yield source

    monkeypatch.setattr(loading, "decode", lambda source: LoadedImage(source=source))
    ahead = load_ahead(draw(), 1, holding(3))
    for taken in range(1, 6):
        next(ahead)
        assert len(drawn) == taken + 2
    ahead.close()
    assert len(drawn) == 7


@pytest.mark.parametrize(
    ("may_hold", "batches"),
    [([6] * 9, [3, 3, 2]), ([6, 6, 6, 6, 6, 6, 6, 2, 2, 1], [3, 2, 1, 1, 1]), ([0] * 20, [1] * 8)],
)
def test_load_ahead__smaller_batches_where_it_may_hold_less(
    monkeypatch: pytest.MonkeyPatch, may_hold: list[int], batches: list[int]
) -> None:
    """As towards the end of a run with several workers."""
    monkeypatch.setattr(loading, "decode", lambda source: LoadedImage(source=source))
    allowed = iter(may_hold)
    found = [len(batch) for batch in load_ahead(sources(8), 3, lambda: next(allowed, may_hold[-1]))]
    assert found == batches


def test_load_ahead__large_images_are_held_in_small_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[int] = []

    def draw() -> Iterator[ImageSource]:
        for source in sources(40):
            drawn.append(source.image_id)
            yield source

    monkeypatch.setattr(loading, "MAX_PIXELS", 100)
    monkeypatch.setattr(loading, "decode", lambda source: photograph(source, 60 if source.image_id < 20 else 30))
    ahead = load_ahead(draw(), 8, holding(16))
    found, held = [], []
    for batch in ahead:
        found.append([image.source.image_id for image in batch])
        held.append(len(drawn) - batch[0].source.image_id)
        assert sum(image.num_pixels for image in batch) <= 100
    assert [image_id for ids in found for image_id in ids] == list(range(40))
    assert found[-2:] == [[34, 35, 36], [37, 38, 39]]
    # The first batch could not know; then one is in work, and two wait.
    assert held[0] == 16
    assert set(held[14:18]) == {3}
    assert max(held[20:]) == 6


def test_load_ahead__loads_while_the_caller_works(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = threading.Semaphore(0)

    def note(source: ImageSource) -> LoadedImage:
        loaded.release()
        return LoadedImage(source=source)

    monkeypatch.setattr(loading, "decode", note)
    ahead = load_ahead(sources(8), 2, holding(4))
    assert len(next(ahead)) == 2
    # Four are read although only two were asked for.
    for _ in range(4):
        assert loaded.acquire(timeout=5)
    ahead.close()


def test_load_ahead__errors_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(source: ImageSource) -> LoadedImage:
        if source.image_id == 2:
            raise MemoryError("no room")
        return LoadedImage(source=source)

    monkeypatch.setattr(loading, "decode", fail)
    ahead = load_ahead(sources(6), 3, holding(6))
    # What was decoded before it is not lost.
    assert [image.source.image_id for image in next(ahead)] == [0, 1]
    with pytest.raises(MemoryError, match="no room"):
        next(ahead)


def test_load_ahead__close_does_not_wait_for_a_read_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()

    def hang(source: ImageSource) -> LoadedImage:
        if source.image_id > 0:
            go_on.wait(5)
        return LoadedImage(source=source)

    monkeypatch.setattr(loading, "decode", hang)
    ahead = load_ahead(sources(3), 1, holding(2))
    next(ahead)
    began = time.monotonic()
    ahead.close()
    assert time.monotonic() - began < 2
    go_on.set()


def test_load_ahead__a_read_that_hangs_does_not_keep_the_process() -> None:
    program = """
import time
from pathlib import Path
from semires.stages.cache_sam import loading
from semires.stages.cache_sam.sources import ImageSource
loading.decode = lambda source: time.sleep(0 if source.image_id == 0 else 600) or loading.LoadedImage(source=source)
ahead = loading.load_ahead([ImageSource(image_id=n, path=Path("a")) for n in range(3)], 1, lambda: 2)
next(ahead)
ahead.close()
"""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert time.monotonic() - began < 120
