"""Codecs of a store's columns: what compresses the packed bits, by a short name.

    zstd-3                        Zstandard, levels 1 to 22
    blosc-zstd-5-shuffle          Blosc (zstd or lz4, levels 1 to 9; shuffle, bitshuffle or noshuffle)

The codec stands in each array's own metadata: every Zarr reader reads every store, and parts of one store may differ.

Per image of 100 COCO-shaped masks at 480x640 (`semires.pipeline.bench.inputs.coco_shapes`), native bits plus their
480x480 view, one core of an AMD EPYC; KiB stored, ms to compress, ms to decompress the view alone:

    codec                     KiB   compress   decompress
    zstd-1                   28.6        1.7          0.6
    zstd-3                   29.3        2.0          0.5
    zstd-6                   26.9        8.0          0.5
    zstd-9                   25.5       17            0.5
    blosc-zstd-3-shuffle     24.1        7            1.3
    blosc-zstd-5-shuffle     21.2       13            1.1   the default
    blosc-zstd-9-shuffle     20.5    1,400            0.9
    blosc-zstd-5-noshuffle   25.9       16            0.8
    blosc-zstd-5-bitshuffle  26.0       12            0.9
    blosc-lz4-5-shuffle      59.3        5            0.8

Shuffle brings the same byte of successive image rows together, which a contour hardly changes from row to row: it needs
to know the row's length. A view always has one; of native bits a part has one where its images are equally wide. Where
they are not, a wrong length costs more than it gains (14.9 against 12.8 KiB, a mixture of COCO's sizes), and Blosc
compresses without shuffling.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, cast

from zarr.codecs import BloscCodec, ZstdCodec

from semires.cache.errors import StoreError

Shuffle = Literal["shuffle", "bitshuffle", "noshuffle"]
_MAX_LEVELS = {"zstd": 22, "blosc-zstd": 9, "blosc-lz4": 9}
_MAX_TYPE_SIZE = 255  # Blosc's header has one byte for it
_PATTERN = re.compile(r"(?:(zstd)-(\d{1,2})|(blosc-zstd|blosc-lz4)-(\d)-(shuffle|bitshuffle|noshuffle))")


@dataclass(frozen=True, kw_only=True)
class Codec:
    """One compressor with its settings; `parse` makes it from its name."""

    compressor: str
    """zstd, blosc-zstd or blosc-lz4."""
    level: int
    """From 1, fast, to 22 (zstd) or 9 (Blosc), small."""
    shuffle: Shuffle = "noshuffle"
    """Blosc's filter before compression."""

    @classmethod
    def parse(cls, name: str) -> Codec:
        """The codec of a name such as "zstd-3" or "blosc-zstd-5-shuffle"; StoreError where it is none."""
        found = _PATTERN.fullmatch(name)
        if found is not None:
            zstd, zstd_level, blosc, blosc_level, shuffle = found.groups()
            compressor, level = zstd or blosc, int(zstd_level or blosc_level)
            if 1 <= level <= _MAX_LEVELS[compressor]:
                return cls(compressor=compressor, level=level, shuffle=cast(Shuffle, shuffle or "noshuffle"))
        raise StoreError(
            f"codec: expected zstd-LEVEL (1 to 22), or blosc-zstd-LEVEL-SHUFFLE or blosc-lz4-LEVEL-SHUFFLE (1 to 9; "
            f"shuffle, bitshuffle or noshuffle), found {name!r}; give e.g. blosc-zstd-5-shuffle"
        )

    def __str__(self) -> str:
        """The name that `parse` reads."""
        tail = "" if self.compressor == "zstd" else f"-{self.shuffle}"
        return f"{self.compressor}-{self.level}{tail}"

    def for_period(self, period: int) -> ZstdCodec | BloscCodec:
        """The codec as zarr takes it, for data that resembles itself every `period` bytes (1: nothing known)."""
        if self.compressor == "zstd":
            return ZstdCodec(level=self.level)
        type_size = _type_size(period)
        name: Literal["zstd", "lz4"] = "zstd" if self.compressor == "blosc-zstd" else "lz4"
        # Shuffling single bytes only costs time; shuffling their bits makes larger files than leaving them.
        shuffle: Shuffle = self.shuffle if type_size > 1 else "noshuffle"
        return BloscCodec(cname=name, clevel=self.level, shuffle=shuffle, typesize=type_size)


def _type_size(period: int) -> int:
    """The largest divisor of `period` that Blosc can note down: a long row then counts as several."""
    return next(size for size in range(min(period, _MAX_TYPE_SIZE), 0, -1) if period % size == 0)


DEFAULT_CODEC = Codec.parse("blosc-zstd-5-shuffle")
