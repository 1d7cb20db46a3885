from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

from semires.cache.errors import StoreError
from semires.cache.storage import shards
from semires.cache.storage.codec import Codec
from semires.cache.storage.hierarchy import Storage
from semires.cache.storage.shards import LocalShards

ROWS = 23
DATA = np.arange(ROWS * 3, dtype=np.int32).reshape(ROWS, 3)


def write(folder: Path, codec: str = "zstd-3", rows_per_shard: int = 12) -> zarr.Array[Any]:
    """23 rows in chunks of 4 and shards of 12: the last shard is not full, nor is its last chunk."""
    column = Storage.create(str(folder), {}).new_column(
        "x",
        shape=DATA.shape,
        dtype=DATA.dtype,
        rows_per_chunk=4,
        rows_per_shard=rows_per_shard,
        codec=Codec.parse(codec),
        period=12,
    )
    column[...] = DATA
    return column


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[zarr.Array[Any]]:
    return [write(tmp_path_factory.mktemp(codec), codec) for codec in ("zstd-3", "blosc-zstd-5-shuffle")]


@settings(deadline=None)
@given(st.integers(0, ROWS), st.integers(0, ROWS))
def test_read__equals_zarrs_slice(arrays: list[zarr.Array[Any]], first: int, second: int) -> None:
    start, stop = sorted((first, second))
    for array in arrays:
        local = LocalShards.of(array)
        assert local is not None
        read = local.read(start, stop)
        assert read.dtype == DATA.dtype
        np.testing.assert_array_equal(read, DATA[start:stop])
        np.testing.assert_array_equal(array[start:stop], DATA[start:stop])


def test_read__every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    local = LocalShards.of(write(tmp_path, rows_per_shard=24))
    assert local is not None
    path = tmp_path / "x" / "c" / "0" / "0"
    intact = path.read_bytes()
    for position in range(len(intact)):
        damaged = bytearray(intact)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises((ValueError, RuntimeError)):
            local.read(0, ROWS)
    path.write_bytes(intact)
    np.testing.assert_array_equal(local.read(0, ROWS), DATA)


@pytest.mark.parametrize("length", [0, 3, 50])
def test_read__truncated_shard(tmp_path: Path, length: int) -> None:
    write(tmp_path, rows_per_shard=24)
    column = Storage(str(tmp_path)).open_column("x")
    column.read()
    path = tmp_path / "x" / "c" / "0" / "0"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(StoreError, match="intact column"):
        column.read()


def test_read__shard_that_vanished(tmp_path: Path) -> None:
    write(tmp_path)
    column = Storage(str(tmp_path)).open_column("x")
    (tmp_path / "x" / "c" / "1" / "0").unlink()
    np.testing.assert_array_equal(column.read(0, 12), DATA[:12])
    with pytest.raises(StoreError, match="FileNotFoundError"):
        column.read(11, 13)


def test_read__shard_that_was_written_anew(tmp_path: Path) -> None:
    array = write(tmp_path)
    column = Storage(str(tmp_path)).open_column("x")
    np.testing.assert_array_equal(column.read(), DATA)
    array[...] = DATA * 1001  # other lengths of chunks, so another index
    np.testing.assert_array_equal(column.read(), DATA * 1001)


def test_of__what_it_does_not_know_is_left_to_zarr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def create(name: str, **how: Any) -> LocalShards | None:
        return LocalShards.of(zarr.create_array(tmp_path / name, shape=(8, 4), dtype="u1", **how))

    plain = [ZstdCodec(), Crc32cCodec()]
    assert create("plain", chunks=(2, 4), shards=(4, 4), compressors=plain) is not None
    assert create("columns", chunks=(2, 2), shards=(4, 4), compressors=plain) is None
    assert create("no_shards", chunks=(2, 4), compressors=plain) is None
    assert create("no_checksum", chunks=(2, 4), shards=(4, 4), compressors=[ZstdCodec()]) is None
    assert create("gzip", chunks=(2, 4), shards=(4, 4), compressors=[GzipCodec(), Crc32cCodec()]) is None
    in_memory = zarr.create_array({}, shape=(8, 4), dtype="u1", chunks=(2, 4), shards=(4, 4), compressors=plain)
    assert LocalShards.of(in_memory) is None
    array = write(tmp_path / "s")
    monkeypatch.setattr(shards, "crc32c", None)
    assert LocalShards.of(array) is None
    np.testing.assert_array_equal(Storage(str(tmp_path / "s")).open_column("x").read(3, 20), DATA[3:20])
