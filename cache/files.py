"""File records: what a part knows of the image files that its candidates were made of, and of the words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

_DIGITS = 64
_WORD_DIGITS = 16
_HEXADECIMAL = re.compile("[0-9a-f]*")
_UNKNOWN = -1
_NO_WORDS = "0" * _WORD_DIGITS


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """An image file as it was read."""

    num_bytes: int
    """Its size."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970; negative before."""
    sha256: str
    """SHA-256 of its bytes, hexadecimal."""
    words: str = ""
    """Digest of the words that the image was searched for, 16 hexadecimal digits; "" where it was for none."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class FileRecords:
    """The records of a part's images, in the order of its rows; a store of many images opens without making each."""

    num_bytes: NDArray[np.int64]
    """int64 [I]; -1 where nothing is known of a file."""
    mtime_ns: NDArray[np.int64]
    """int64 [I]."""
    sha256: str
    """All digests, one after the other."""
    words: str = ""
    """The same of words; "" where no image was searched for any. Images without words have zeros among others."""

    @classmethod
    def of(cls, records: Sequence[FileRecord | None]) -> FileRecords:
        """These records; None where nothing is known."""
        known = [record or FileRecord(num_bytes=_UNKNOWN, mtime_ns=0, sha256="0" * _DIGITS) for record in records]
        has_words = any(record.words for record in known)
        return cls(
            num_bytes=np.array([record.num_bytes for record in known], np.int64),
            mtime_ns=np.array([record.mtime_ns for record in known], np.int64),
            sha256="".join(record.sha256 for record in known),
            words="".join(record.words or _NO_WORDS for record in known) if has_words else "",
        )

    def __len__(self) -> int:
        return len(self.num_bytes)

    def __getitem__(self, row: int) -> FileRecord | None:
        if self.num_bytes[row] == _UNKNOWN:
            return None
        words = self.words[_WORD_DIGITS * row : _WORD_DIGITS * (row + 1)]
        return FileRecord(
            num_bytes=int(self.num_bytes[row]),
            mtime_ns=int(self.mtime_ns[row]),
            sha256=self.sha256[_DIGITS * row : _DIGITS * (row + 1)],
            words="" if words == _NO_WORDS else words,
        )

    def to_json(self) -> dict[str, Any]:
        """As a part's attributes hold it: {"num_bytes": [...], "mtime_ns": [...], "sha256": "..."}, and "words"."""
        known = {"num_bytes": self.num_bytes.tolist(), "mtime_ns": self.mtime_ns.tolist(), "sha256": self.sha256}
        return known | ({"words": self.words} if self.words else {})

    @classmethod
    def from_json(cls, value: object, num_images: int) -> FileRecords:
        """The records of as many images that `to_json` wrote; ValueError for anything else."""
        match value:
            case {"num_bytes": list(sizes), "mtime_ns": list(times), "sha256": str(sha256), **others}:
                arrays = [np.asarray(numbers or np.zeros(0, np.int64)) for numbers in (sizes, times)]
                is_whole = all(array.dtype == np.int64 and array.shape == (num_images,) for array in arrays)
                words = str(others.get("words", ""))
                is_hex = _is_hex(sha256, _DIGITS * num_images) and (
                    words == "" or _is_hex(words, _WORD_DIGITS * num_images)
                )
                if is_whole and is_hex and bool(np.all(arrays[0] >= _UNKNOWN)):
                    return cls(num_bytes=arrays[0], mtime_ns=arrays[1], sha256=sha256, words=words)
        raise ValueError(f"expected num_bytes, mtime_ns and sha256 of {num_images} files, found {value!r:.80}")


def _is_hex(text: str, length: int) -> bool:
    return len(text) == length and _HEXADECIMAL.fullmatch(text) is not None
