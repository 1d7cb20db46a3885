"""File records: what a part knows of the image files that its candidates were made of."""

from __future__ import annotations

import re
from dataclasses import dataclass

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileRecord:
    """An image file as it was read."""

    num_bytes: int
    """Its size."""
    mtime_ns: int
    """When it was last changed, in nanoseconds since 1970; negative before."""
    sha256: str
    """SHA-256 of its bytes, hexadecimal."""

    def to_json(self) -> list[int | str]:
        """As a part's attributes hold it: [num_bytes, mtime_ns, sha256]."""
        return [self.num_bytes, self.mtime_ns, self.sha256]

    @classmethod
    def from_json(cls, value: object) -> FileRecord:
        """The record that `to_json` wrote; ValueError for anything else."""
        match value:
            case [int(num_bytes), int(mtime_ns), str(sha256)] if num_bytes >= 0 and _SHA256.fullmatch(sha256):
                return cls(num_bytes=num_bytes, mtime_ns=mtime_ns, sha256=sha256)
        raise ValueError(f"expected [bytes, mtime in ns, sha256], found {value!r:.80}")
