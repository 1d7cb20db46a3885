from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from zarr.codecs import Crc32cCodec, GzipCodec, ZstdCodec

from semires.cache.errors import StoreError
from semires.cache.storage import shards
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.hierarchy import Storage
from semires.cache.storage.shards import LocalShards

ROWS = 23
Rows = NDArray[np.int32]
DATA: Rows = np.arange(ROWS * 3, dtype=np.int32).reshape(ROWS, 3)


def write(
    folder: Path, codec: str = "zstd-3", rows_per_shard: int = 12, pieces: Sequence[int] = (), data: Rows = DATA
) -> zarr.Array[Any]:
    """23 rows in chunks of 4 and shards of 12: the last shard is not full, nor is its last chunk."""
    column = Storage.create(str(folder), {}).new_column(
        "x",
        shape=data.shape,
        dtype=data.dtype,
        rows_per_chunk=4,
        rows_per_shard=rows_per_shard,
        codec=Codec.parse(codec),
        period=12,
    )
    for rows in np.split(data, pieces):
        column.append(rows)
    column.close()
    return zarr.open_array(folder / "x", mode="r")


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory) -> list[zarr.Array[Any]]:
    return [write(tmp_path_factory.mktemp(codec), codec) for codec in ("zstd-3", "blosc-zstd-5-shuffle")]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "codec", ["zstd-3", "blosc-zstd-5-shuffle", "blosc-lz4-1-noshuffle", "blosc-zstd-9-bitshuffle"]
)
@pytest.mark.parametrize("pieces", [(), (1, 2), (0, 4, 5, 16, 23), range(23)])
@pytest.mark.parametrize(
    ("num_rows", "rows_per_shard"), [(23, 12), (23, 24), (13, 12), (24, 12), (8, 8), (1, 1), (0, 8)]
)
def test_append__byte_by_byte_what_zarr_writes(
    tmp_path: Path, codec: str, pieces: Sequence[int], num_rows: int, rows_per_shard: int
) -> None:
    data = DATA[:num_rows]
    written = write(tmp_path / "ours", codec, rows_per_shard, pieces, data)
    made = zarr.create_array(
        tmp_path / "zarrs" / "x",
        shape=data.shape,
        dtype=data.dtype,
        chunks=written.chunks,
        shards=written.shards,
        compressors=[Codec.parse(codec).for_period(12), Crc32cCodec()],
        fill_value=0,
        config={"write_empty_chunks": True},
    )
    if num_rows:
        made[...] = data
    assert contents(tmp_path / "ours" / "x") == contents(tmp_path / "zarrs" / "x")


@pytest.mark.parametrize("codec", ["zstd-3", "blosc-zstd-5-shuffle"])
def test_append__a_run_with_another_codec_came_before(tmp_path: Path, codec: str) -> None:
    """Some of its shards may be there: what is written now fits to them."""
    write(tmp_path, codec)
    before = contents(tmp_path)
    (tmp_path / "x/c/1/0").unlink()
    write(tmp_path, "blosc-lz4-1-noshuffle")
    assert contents(tmp_path) == before


def test_append__what_only_zarr_can_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "ours", pieces=(3, 9))
    monkeypatch.setattr(shards, "crc32c", None)
    write(tmp_path / "zarrs", pieces=(3, 9))
    assert contents(tmp_path / "ours") == contents(tmp_path / "zarrs")


def test_append__wrong_number_or_kind_of_rows(tmp_path: Path) -> None:
    """No rows that vanish, or change their meaning."""
    column = Storage.create(str(tmp_path), {}).new_column(
        "x", shape=(3,), dtype=np.dtype("i4"), rows_per_chunk=2, rows_per_shard=4, codec=DEFAULT_CODEC, period=1
    )
    with pytest.raises(AssertionError, match="expected int32, got int64"):
        column.append(np.zeros(3, np.int64))
    column.append(np.zeros(2, np.int32))
    with pytest.raises(AssertionError, match="expected 3 rows, got 2"):
        column.close()


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
    write(tmp_path)
    column = Storage(str(tmp_path)).open_column("x")
    np.testing.assert_array_equal(column.read(), DATA)
    write(tmp_path, data=DATA * 1001)  # other lengths of chunks, so another index
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


@pytest.mark.parametrize("num_rows", [13, 17])
def test_read__last_shard_with_fewer_chunks(tmp_path: Path, num_rows: int) -> None:
    """Zarr leaves out what lies behind the last row; of the chunks before it none may be absent."""
    data = DATA[:num_rows]
    local = LocalShards.of(write(tmp_path, data=data))
    assert local is not None
    np.testing.assert_array_equal(local.read(0, num_rows), data)
    path = tmp_path / "x" / "c" / "1" / "0"
    intact = path.read_bytes()
    index = np.frombuffer(intact[-52:-4], "<u8").copy()
    assert np.count_nonzero(index == 2**64 - 1) == 2 * (3 - -(-(num_rows - 12) // 4))
    index[:2] = 2**64 - 1
    path.write_bytes(intact[:-52] + index.tobytes() + shards.crc32c(index.tobytes()).to_bytes(4, "little"))
    with pytest.raises(ValueError, match="a chunk is missing"):
        local.read(12, 13)
