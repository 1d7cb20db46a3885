"""What tests of downloads share: what was said, small sources, zip archives."""

import dataclasses
import hashlib
import io
import zipfile
from collections.abc import Callable
from typing import Any

import pytest

from semires.stages.data.download.sources import DOWNLOADS, Source, SourceFile, Unpacking
from semires.stages.data.download.telling import Tell


@dataclasses.dataclass(frozen=True)
class Told(Tell):
    """A `Tell` that remembers."""

    lines: list[str]
    counts: list[tuple[str, int, int]]


@pytest.fixture
def told() -> Told:
    lines: list[str] = []
    counts: list[tuple[str, int, int]] = []
    return Told(say=lines.append, on_progress=lambda *count: counts.append(count), lines=lines, counts=counts)


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.fixture
def make_zip() -> Callable[[dict[str, bytes]], bytes]:
    return zipped


@pytest.fixture
def make_file() -> Callable[..., SourceFile]:
    """A file at several mirrors that is known to have this content."""

    def make(content: bytes, *mirrors: str, path: str = "a.bin", **changes: Any) -> SourceFile:
        urls = tuple(f"{mirror}/{path}" for mirror in mirrors)
        sha256 = hashlib.sha256(content).hexdigest()
        return SourceFile(**({"path": path, "urls": urls, "size": len(content), "sha256": sha256} | changes))

    return make


@pytest.fixture
def make_source(make_file: Callable[..., SourceFile]) -> Callable[..., Source]:
    """An archive `mini.zip` whose `mini/` becomes the folder `sets/mini`."""

    def make(content: bytes, *mirrors: str, **changes: Any) -> Source:
        unpacking = Unpacking(**({"inside": "mini", "folder": "sets/mini", "needed": ("a.txt",), "size": 10} | changes))
        file = make_file(content, *mirrors, path="mini.zip")
        return Source(name="mini", what="a set", folder=DOWNLOADS, files=(file,), unpacking=unpacking)

    return make
