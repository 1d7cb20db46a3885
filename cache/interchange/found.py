"""What a format is asked for and what it finds: between the formats' modules and importing.py."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from semires.cache.candidates import Candidates
from semires.cache.interchange.files import name_below
from semires.cache.interchange.known_images import KnownImages
from semires.cache.schema import Manifest

Visit = Callable[[int, Any], None]


class LoadRecords(Protocol):
    """Reads a JSON file record by record: `semires.stages.data.files.json_records.load_records`, which whoever calls
    hands in, as the store imports nothing of the stages."""

    def __call__(self, path: Path, visits: Mapping[str, Visit], top: Visit | None = None) -> Any:
        """What is in the file but for the arrays that are visited; ValueError where it is no JSON."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """Where to look."""

    source: Path
    """A folder, or one file."""
    images: KnownImages
    """The images that the masks may be of."""
    load_records: LoadRecords
    resources: ExitStack
    """Closes what the found images are read from, when the import is over."""


@dataclass(frozen=True, kw_only=True)
class FoundImage:
    """An image whose masks are in the files."""

    image_id: int
    path: Path
    """The file or folder, for messages."""
    load: Callable[[], Candidates]
    """Reads them; StoreError where they are malformed."""
    size: tuple[int, int] | None = None
    """(height, width) in pixels, where the files say it before the masks are read."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is in the files."""

    images: Sequence[FoundImage]
    """In the order in which they are stored."""
    left_out: Sequence[str] = ()
    """What is not imported, and why, each a line without an end."""
    manifest: Manifest | None = None
    """That of the store that the files were exported from, where all say the same."""


def found_by_name(request: Request, paths: Iterable[Path], make: Callable[[int, Path], FoundImage]) -> Found:
    """What `make(image_id, path)` says of each of `paths`, files or folders that are named after their images."""
    images, left_out = [], []
    for path in paths:
        name = name_below(path, request.source)
        image_id = request.images.of_name(path, name)
        if image_id is None:
            left_out.append(f"{path}: {name!r} is none of {request.images.where}")
        else:
            images.append(make(image_id, path))
    return Found(images=images, left_out=left_out)
