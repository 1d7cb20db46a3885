"""Files of other programs: found, read, and refused with one line.

They are somebody else's: whatever is wrong with one is a StoreError that names it, and what a file claims about sizes
is checked before memory is taken for it.
"""

from __future__ import annotations

import json
import os
import reprlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from semires.cache.bits import packed_length
from semires.cache.errors import StoreError

MAX_SIDE = 2**15
"""Longest side of an image that a file may claim, in pixels."""

MAX_PIXELS = 2**28
"""Most pixels of an image that a file may claim: what decoding one mask takes in bytes. SA-1B's have 3.4 million."""

MAX_PACKED_BYTES = 2**32
"""Most bytes of packed bits that one image's masks may claim: 700 masks of 6048 x 8064 pixels; 500 of SA-1B's
1500 x 2250 take 2**28."""

_SYSTEM_FOLDERS = ("__MACOSX", "@eaDir")


def list_files(source: Path, suffix: str) -> list[Path]:
    """The file `source` itself, or the files below the folder `source` whose names end in `suffix` (in any case).

    Sub-folders are looked through, linked ones too; hidden files and folders and those of the system (`._x`,
    `__MACOSX`, `@eaDir`) are left out. Sorted by folder, numbers in their order. StoreError where there is none.
    """
    if source.is_file():
        if source.suffix.lower() != suffix:
            raise StoreError(f"{source}: expected a file ending in {suffix}, found another; give --format")
        return [source]
    paths = [path for path in _walk(source) if path.suffix.lower() == suffix and path.is_file()]
    if not paths:
        raise StoreError(f"{source}: expected files ending in {suffix}, found none; give their folder, or --format")
    return sorted(paths, key=lambda path: (path.parent.parts, len(path.stem), path.stem))


def _walk(folder: Path) -> Iterator[Path]:
    def fail(error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        raise StoreError(
            f"{error.filename}: expected a folder that can be read, found: {reason}; correct it"
        ) from error

    seen = set()
    for parent, folders, names in os.walk(folder, onerror=fail, followlinks=True):
        # A link to a folder above would lead round for ever.
        real = os.path.realpath(parent)
        folders[:] = [] if real in seen else [name for name in folders if _is_users(name)]
        if real not in seen:
            yield from (Path(parent, name) for name in names if _is_users(name))
        seen.add(real)


def _is_users(name: str) -> bool:
    return not name.startswith(".") and name not in _SYSTEM_FOLDERS


def name_below(path: Path, source: Path) -> str:
    """What names the image of a file or folder: its path below `source`, "/" between folders, without its last ending
    where it is a file; of `source` itself its own name."""
    relative = Path(path.name) if path == source else path.relative_to(source)
    return relative.as_posix() if path.is_dir() else relative.with_suffix("").as_posix()


def read_json(path: Path) -> Any:
    """The parsed document; StoreError where the file cannot be read or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise no_json(path, error) from error


def no_json(path: Path, error: Exception) -> StoreError:
    """The error for a file that could not be read or parsed; RecursionError: nested deeper than the parser goes."""
    return bad_file(path, "", "a JSON document", f"{type(error).__name__}: {' '.join(str(error).split())}")


def check_packed_bytes(path: Path, num_masks: int, height: int, width: int) -> None:
    """Raise StoreError where the masks of an image would take more memory than any real image's."""
    num_bytes = num_masks * height * packed_length(width)
    if num_bytes > MAX_PACKED_BYTES:
        found = f"{num_masks} of {height} x {width} that take {num_bytes}"
        raise bad_file(path, "", f"masks that take at most {MAX_PACKED_BYTES} bytes packed", found)


def parse_size(path: Path, where: str, height: object, width: object) -> tuple[int, int]:
    """Height and width in pixels as a file gives them, within the limits above; StoreError otherwise."""
    for name, side in (("height", height), ("width", width)):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise bad_file(path, where, f"a {name} of 1 to {MAX_SIDE} pixels", shown(side))
    assert isinstance(height, int)
    assert isinstance(width, int)
    if height * width > MAX_PIXELS:
        raise bad_file(path, where, f"an image of at most {MAX_PIXELS} pixels", f"{height} x {width}")
    return height, width


def parse_image_id(path: Path, where: str, image_id: object, key: str = "image_id") -> int:
    """An image id as a file gives it, an int64; StoreError otherwise."""
    if type(image_id) is not int or not -(2**63) <= image_id < 2**63:
        raise bad_file(path, where, f"an integer {key}", shown(image_id))
    return image_id


def bad_file(
    path: Path, where: str, expected: str, found: str, remedy: str = "restore or remove this file and import again"
) -> StoreError:
    """The error for a file that cannot be imported; `where` names the place in it and may be empty."""
    place = f"{path}: {where}" if where else str(path)
    return StoreError(f"{place}: expected {expected}, found {found}; {remedy}")


def shown(value: object) -> str:
    """A parsed JSON value as one short line, however long or deep it is."""
    return reprlib.repr(value)


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first few names of a list, for a message."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
