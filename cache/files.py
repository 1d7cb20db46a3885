"""File records: what a part knows of the image files that its candidates were made of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS = 64
_SHA256 = re.compile(f"(?:[0-9a-f]{{{_DIGITS}}})*")
_UNKNOWN = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """An image file as it was read."""

    num_bytes: int
    """Its size."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970; negative before."""
    sha256: str
    """SHA-256 of its bytes, hexadecimal."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FileRecords:
    """The records of a part's images, in the order of its rows; a store of many images opens without making each."""

    num_bytes: NDArray[np.int64]
    """int64 [I]; -1 where nothing is known of a file."""
    mtime_ns: NDArray[np.int64]
    """int64 [I]."""
    sha256: str
    """All digests, one after the other."""

    @classmethod
    def of(cls, records: Sequence[FileRecord | None]) -> FileRecords:
        """These records; None where nothing is known."""
        known = [record or FileRecord(num_bytes=_UNKNOWN, mtime_ns=0, sha256="0" * _DIGITS) for record in records]
        return cls(
            num_bytes=np.array([record.num_bytes for record in known], np.int64),
            mtime_ns=np.array([record.mtime_ns for record in known], np.int64),
            sha256="".join(record.sha256 for record in known),
        )

    def __len__(self) -> int:
        return len(self.num_bytes)

    def __getitem__(self, row: int) -> FileRecord | None:
        if self.num_bytes[row] == _UNKNOWN:
            return None
        return FileRecord(
            num_bytes=int(self.num_bytes[row]),
            mtime_ns=int(self.mtime_ns[row]),
            sha256=self.sha256[_DIGITS * row : _DIGITS * (row + 1)],
        )

    def to_json(self) -> dict[str, Any]:
        """As a part's attributes hold it: {"num_bytes": [...], "mtime_ns": [...], "sha256": "..."}."""
        return {"num_bytes": self.num_bytes.tolist(), "mtime_ns": self.mtime_ns.tolist(), "sha256": self.sha256}

    @classmethod
    def from_json(cls, value: object, num_images: int) -> FileRecords:
        """The records of as many images that `to_json` wrote; ValueError for anything else."""
        match value:
            case {"num_bytes": list(sizes), "mtime_ns": list(times), "sha256": str(sha256)}:
                arrays = [np.asarray(numbers or np.zeros(0, np.int64)) for numbers in (sizes, times)]
                is_whole = all(array.dtype == np.int64 and array.shape == (num_images,) for array in arrays)
                is_hex = len(sha256) == _DIGITS * num_images and _SHA256.fullmatch(sha256) is not None
                if is_whole and is_hex and bool(np.all(arrays[0] >= _UNKNOWN)):
                    return cls(num_bytes=arrays[0], mtime_ns=arrays[1], sha256=sha256)
        raise ValueError(f"expected num_bytes, mtime_ns and sha256 of {num_images} files, found {value!r:.80}")
