"""Shards: rows of a column read, and written, without zarr's event loop.

Zarr takes a shard through an event loop and a thread for each chunk: to read one image takes five times as long as
decompressing it (100 masks at 480x480: 5 to 7 ms against 1.2 to 1.5 ms here), to write it more than twice as long as
compressing it. What `Storage.new_column` makes is plain enough to do by Zarr's specification (version 3, codec
`sharding_indexed`): a shard is a file of chunks along axis 0, followed by an index of uint64 [chunks, 2] (offset,
length) and its CRC-32C; a chunk is compressed bytes and their CRC-32C. Every read compares both checksums, and what is
written is byte by byte what zarr writes.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray
from zarr.storage import LocalStore

try:
    from google_crc32c import value as crc32c  # zarr's own choice, so installed with it
except ImportError:  # zarr changed its mind; reading through it always works
    crc32c = None

_CRC_BYTES = 4
_ENTRY_BYTES = 16
_ABSENT = np.uint64(2**64 - 1)
_INDEX_CODECS = ("bytes", "crc32c")
_DECODERS: dict[str, Callable[..., Any]] = {"zstd": Zstd().decode, "blosc": Blosc().decode}
_SHUFFLES = {"noshuffle": Blosc.NOSHUFFLE, "shuffle": Blosc.SHUFFLE, "bitshuffle": Blosc.BITSHUFFLE}


def shard_key(array: zarr.Array[Any], index: int) -> str:
    """Key in the array's store of its shard `index` along axis 0; other axes are never divided."""
    return f"{array.path}/c/{index}{'/0' * (array.ndim - 1)}".lstrip("/")


def _compression(array: zarr.Array[Any]) -> dict[str, Any] | None:
    """The compressor in an array's metadata, where all else is as `Storage.new_column` writes it; None else."""
    if crc32c is None or sys.byteorder != "little" or array.shards is None:
        return None
    if array.chunks[1:] != array.shape[1:] or array.shards[1:] != array.shape[1:]:
        return None
    codecs = array.metadata.to_dict()["codecs"]
    if not isinstance(codecs, list | tuple) or [codec["name"] for codec in codecs] != ["sharding_indexed"]:
        return None
    sharding = codecs[0]["configuration"]
    names = [codec["name"] for codec in sharding["codecs"]]
    if len(names) != 3 or names[0] != "bytes" or names[1] not in _DECODERS or names[2] != "crc32c":
        return None
    is_plain = tuple(codec["name"] for codec in sharding["index_codecs"]) == _INDEX_CODECS
    every = (*sharding["codecs"], *sharding["index_codecs"])
    orders = [codec.get("configuration", {}).get("endian") for codec in every]
    if not is_plain or sharding["index_location"] != "end" or "big" in orders:
        return None
    compression: dict[str, Any] = sharding["codecs"][1]
    return compression


class LocalShards:
    """The shards of one array of a local store; `of` says whether they can be read this way."""

    def __init__(self, array: zarr.Array[Any], root: Path, decode: Callable[..., Any]) -> None:
        self._array = array
        self._root = root
        self._decode = decode
        self._row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
        self._rows_per_chunk = array.chunks[0]
        self._chunks_per_shard = (array.shards or array.chunks)[0] // array.chunks[0]
        # Kept, as reading it costs as much as reading a chunk, with what the file looked like then.
        self._indices: dict[int, tuple[tuple[int, int, int], NDArray[np.int64]]] = {}

    @classmethod
    def of(cls, array: zarr.Array[Any]) -> LocalShards | None:
        """None where the array is not local or holds anything else than `Storage.new_column` writes."""
        store, compression = array.store_path.store, _compression(array)
        if compression is None or not isinstance(store, LocalStore):
            return None
        return cls(array, store.root, _DECODERS[compression["name"]])

    def read(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop`, which the array has.

        Raises FileNotFoundError where a shard is missing; ValueError or RuntimeError where its bytes are damaged.
        """
        rows = np.empty((stop - start, *self._array.shape[1:]), self._array.dtype)
        flat = rows.reshape(-1).view(np.uint8)
        shard_rows = self._rows_per_chunk * self._chunks_per_shard
        for shard in range(start // shard_rows, -(-stop // shard_rows) if stop > start else 0):
            self._read_shard(shard, start, stop, flat)
        return rows

    def _read_shard(self, shard: int, start: int, stop: int, flat: NDArray[np.uint8]) -> None:
        """Fill `flat`, the bytes of the rows from `start` to `stop`, with those that lie in one shard."""
        shard_start = shard * self._chunks_per_shard
        first = max(start // self._rows_per_chunk, shard_start)
        last = min(-(-stop // self._rows_per_chunk), shard_start + self._chunks_per_shard)
        key = shard_key(self._array, shard)
        with open(self._root / key, "rb", buffering=0) as file:
            index = self._index(shard, file)
            for chunk in range(first, last):
                chunk_start = chunk * self._rows_per_chunk
                chunk_stop = chunk_start + self._rows_per_chunk
                from_row, to_row = max(start, chunk_start), min(stop, chunk_stop)
                out = flat[(from_row - start) * self._row_bytes : (to_row - start) * self._row_bytes]
                compressed = _read_checked(file, *index[chunk - shard_start].tolist())
                if to_row - from_row == self._rows_per_chunk:
                    self._decode(compressed, out)
                    continue
                decoded = np.frombuffer(self._decode(compressed), np.uint8)
                if len(decoded) != self._rows_per_chunk * self._row_bytes:
                    raise ValueError(f"{key}: a chunk of {len(decoded)} bytes")
                out[:] = decoded[(from_row - chunk_start) * self._row_bytes : (to_row - chunk_start) * self._row_bytes]

    def _index(self, shard: int, file: FileIO) -> NDArray[np.int64]:
        """Offset and length of every chunk of the shard, int64 [chunks, 2]."""
        status = os.fstat(file.fileno())
        look = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._indices.get(shard)
        if known is not None and known[0] == look:
            return known[1]
        size = self._chunks_per_shard * _ENTRY_BYTES + _CRC_BYTES
        entries = np.frombuffer(_read_checked(file, status.st_size - size, size), "<u8")
        index = entries.astype(np.int64).reshape(self._chunks_per_shard, 2)
        # Chunks of zeros are written too (see new_column), so none is absent but those behind the last row.
        num_chunks = -(-self._array.shape[0] // self._rows_per_chunk) - shard * self._chunks_per_shard
        if np.any(entries.reshape(index.shape)[:num_chunks] == _ABSENT):
            raise ValueError("a chunk is missing")
        self._indices[shard] = look, index
        return index


class ShardWriter:
    """Writes the rows of one array in their order, in pieces of any length, as whole shards; `close` ends the last one.

    `put(key, pieces)` stores a shard. Of the rows only a chunk is held, compressed chunks till their shard is whole.
    """

    def __init__(self, array: zarr.Array[Any], put: Callable[[str, list[Any]], object]) -> None:
        self._array = array
        self._put = put
        self._encode = _encoder(_compression(array))
        self._num_rows = self._num_shards = self._filled = 0
        self._chunk = np.zeros(array.chunks[0] * array.dtype.itemsize * math.prod(array.shape[1:]), np.uint8)
        self._chunks_per_shard = (array.shards or array.chunks)[0] // array.chunks[0]
        self._pieces: list[Any] = []  # compressed chunks and their checksums, in turns
        self._index: list[tuple[int, int]] = []
        self._offset = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows, of the array's dtype and of its shape but for axis 0, after those that were added before."""
        assert rows.dtype == self._array.dtype, f"expected {self._array.dtype}, got {rows.dtype}"
        start, self._num_rows = self._num_rows, self._num_rows + len(rows)
        if self._encode is None:  # what zarr alone knows how to write
            if len(rows):
                self._array[start : self._num_rows] = rows
            return
        data = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        while len(data):
            taken = data[: len(self._chunk) - self._filled]
            data = data[len(taken) :]
            if len(taken) == len(self._chunk):  # as it lies, without a copy
                self._end_chunk(taken)
                continue
            self._chunk[self._filled : self._filled + len(taken)] = taken
            self._filled += len(taken)
            if self._filled == len(self._chunk):
                self._end_chunk(self._chunk)

    def close(self) -> None:
        """Write what is left, filled up with zeros to a whole chunk; chunks behind it are absent."""
        assert self._num_rows == self._array.shape[0], f"expected {self._array.shape[0]} rows, got {self._num_rows}"
        if self._filled:
            self._chunk[self._filled :] = 0
            self._end_chunk(self._chunk)
        if self._index:
            self._end_shard()

    def _end_chunk(self, data: NDArray[np.uint8]) -> None:
        assert self._encode is not None
        self._filled = 0
        compressed = self._encode(data)
        self._pieces += [compressed, _checksum(compressed)]
        self._index.append((self._offset, len(compressed) + _CRC_BYTES))
        self._offset += len(compressed) + _CRC_BYTES
        if len(self._index) == self._chunks_per_shard:
            self._end_shard()

    def _end_shard(self) -> None:
        entries = np.full((self._chunks_per_shard, 2), _ABSENT, "<u8")
        entries[: len(self._index)] = self._index
        index = entries.tobytes()
        self._put(shard_key(self._array, self._num_shards), [*self._pieces, index, _checksum(index)])
        self._num_shards += 1
        self._pieces, self._index, self._offset = [], [], 0


def _encoder(compression: dict[str, Any] | None) -> Callable[[Any], bytes] | None:
    """What compresses as an array's metadata say; None where zarr has to."""
    if compression is None:
        return None
    how = compression["configuration"]
    codec: Any
    if compression["name"] == "zstd":
        codec = Zstd(level=how["level"], checksum=how["checksum"])
    else:
        shuffle = _SHUFFLES[how["shuffle"]]
        codec = Blosc(how["cname"], how["clevel"], shuffle, blocksize=how["blocksize"], typesize=how["typesize"])
    encode: Callable[[Any], bytes] = codec.encode
    return encode


def _checksum(data: bytes) -> bytes:
    return int(crc32c(data)).to_bytes(_CRC_BYTES, "little")


def _read_checked(file: FileIO, offset: int, length: int) -> bytes:
    """`length` bytes from `offset` without the CRC-32C they end with; ValueError where it does not fit."""
    if offset < 0 or length <= _CRC_BYTES:
        raise ValueError(f"a block of {length} bytes at {offset}")
    file.seek(offset)
    data = file.read(length)
    body, stored = data[:-_CRC_BYTES], data[-_CRC_BYTES:]
    if len(data) != length or crc32c(body) != int.from_bytes(stored, "little"):
        raise ValueError(f"stored and computed checksum do not match at byte {offset}")
    return body
