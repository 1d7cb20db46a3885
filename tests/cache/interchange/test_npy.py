import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semires.cache.errors import StoreError
from semires.cache.interchange.importing import ImportReport
from semires.cache.reader import CandidateStore

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]

MASKS = np.random.default_rng(0).random((3, 5, 11)) < 0.4


class _Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("exploded"),)


@pytest.mark.parametrize(
    "array", [MASKS, np.asfortranarray(MASKS), MASKS.astype(np.uint8) * 255, MASKS.astype(">i8"), MASKS[:0]]
)
def test_import__masks(tmp_path: Path, import_from: ImportFrom, array: np.ndarray) -> None:
    np.save(tmp_path / "7.npy", array)
    _, store = import_from(tmp_path / "7.npy", "npy")
    np.testing.assert_array_equal(store[7].masks(), array != 0)
    assert np.isnan(store[7].points_xy).all()


@pytest.mark.parametrize("dtype", ["u1", "<i8", ">u2", "?"])
def test_import__labels(tmp_path: Path, import_from: ImportFrom, dtype: str) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 13)).astype(dtype)
    np.save(tmp_path / "7.npy", labels)
    _, store = import_from(tmp_path, "npy")
    np.testing.assert_array_equal(store[7].masks(), [labels == value for value in np.unique(labels)[1:]])


def header(shape: tuple[int, ...], descr: str = "|b1") -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "found EOFError"),
        (b"no array", "found ValueError"),
        (header((2**40, 2**20, 2**20)), "found "),
        (header((9, 5, 11)), "found ValueError: mmap length is greater than file size"),
        (header((5, 11), "|O"), "found ValueError: "),
        (np.zeros((5, 11), np.float32), r"expected masks, bool \[M, H, W\], or labels, .*, found float32 \[5, 11\]"),
        (np.zeros(5, np.bool_), r"found bool \[5\]"),
        (np.zeros((0, 5), np.bool_), "expected a height of 1 to 32768 pixels, found 0"),
        (np.zeros((2, 1, 40_000), np.bool_), "expected a width of 1 to 32768 pixels, found 40000"),
        (np.array([[1, -1]]), r"expected labels from 0 \(no mask\), found -1; write 0 where no mask is"),
        (np.arange(6).reshape(1, 2, 3), "mask 0: expected 0 and one other value, found several"),
    ],
)
def test_import__refused(tmp_path: Path, import_from: ImportFrom, content: Any, message: str) -> None:
    if isinstance(content, bytes):
        (tmp_path / "7.npy").write_bytes(content)
    else:
        np.save(tmp_path / "7.npy", content)
    with pytest.raises(StoreError, match=rf"7\.npy: .*{message}") as caught:
        import_from(tmp_path / "7.npy", "npy")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "store.zarr").exists()


def test_import__nothing_is_unpickled(tmp_path: Path, import_from: ImportFrom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "7.npy", np.array([[_Bomb()]], object), allow_pickle=True)
    with pytest.raises(StoreError, match=r"7\.npy: expected masks, .* found ValueError"):
        import_from(tmp_path / "7.npy", "npy")
    assert not (tmp_path / "exploded").exists()


def test_import__a_packed_archive_under_its_name(tmp_path: Path, import_from: ImportFrom) -> None:
    np.savez(tmp_path / "x.npz", MASKS)
    (tmp_path / "x.npz").rename(tmp_path / "7.npy")
    with pytest.raises(StoreError, match=r"7\.npy: expected masks, .*, found "):
        import_from(tmp_path / "7.npy", "npy")


def test_import__too_many_masks_for_memory(tmp_path: Path, import_from: ImportFrom) -> None:
    """By the header: the file behind it is sparse, and nobody reads it."""
    shape = (129, 16384, 16384)
    with (tmp_path / "7.npy").open("wb") as file:
        file.write(header(shape))
        file.truncate(file.tell() + int(np.prod(shape)))
    with pytest.raises(
        StoreError, match="expected masks that take at most 4294967296 bytes packed, found 129 of 16384"
    ):
        import_from(tmp_path / "7.npy", "npy")
