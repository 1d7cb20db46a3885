"""One file of a source: here and right, or fetched from the first mirror that gives it."""

import filecmp
import hashlib
import os
import urllib.parse
from pathlib import Path

from semires.stages.data.download.sources import SourceFile
from semires.stages.data.download.telling import Tell
from semires.stages.data.download.transfer import CHUNK, TransferError, complete, discard, partial_of, transfer
from semires.stages.data.errors import InputError

MEGABYTE = 1_000_000


def fetch_file(file: SourceFile, path: Path, tell: Tell, *, mirror: str | None = None, wait: float = 2.0) -> bool:
    """Make sure that `path` is the file; whether something had to be fetched for it.

    What is here and is another file is moved aside (`set_aside`), and so is what a mirror gives and is another; both
    are said, and neither is used. mirror: an address below which the file lies under its `path`, tried in place of the
    published ones. wait: see `transfer`.

    Raises `InputError` when no mirror gives the file: each of them is said in a line before.
    """
    if path.is_file():
        problem = _problem(file, path, tell)
        if problem is None:
            how = "its checksum is right" if file.sha256 is not None else "no checksum is known to compare it with"
            tell.say(f"{path}: here, {how}; not fetched")
            return False
        tell.say(f"{path}: {problem}; it is kept as {set_aside(path).name} and not used")
    urls = file.urls if mirror is None else (f"{mirror.rstrip('/')}/{urllib.parse.quote(file.path)}",)
    for url in urls:
        if _fetch_from(url, file, path, tell, wait):
            return True
    raise InputError(
        f"{path.name}: expected one of {len(urls)} addresses to give it, found none that does (the lines above say why "
        f"not); get it by hand, put it at {path} and type the command again, which checks it; or give a mirror of your "
        "own with --from"
    )


def _fetch_from(url: str, file: SourceFile, path: Path, tell: Tell, wait: float) -> bool:
    """Whether `url` gave the file. What came of two versions in parts is fetched once more, whole."""
    what = f"{path.name}, MB"

    def on_bytes(done: int, total: int | None) -> None:
        # The last megabyte is whole when the file is: a count that ends early would begin anew.
        whole = max(-(-(total or file.size) // MEGABYTE), 1)
        tell.on_progress(what, whole if done == total else min(done // MEGABYTE, whole - 1), whole)

    partial = partial_of(path)
    for _ in range(2):
        if partial.is_file():
            tell.say(f"{path.name}: {partial.stat().st_size / 1e6:,.1f} MB are here already")
        try:
            size = file.size if file.is_size_known else None
            kept = transfer(url, path, size=size, is_checked=file.sha256 is not None, on_bytes=on_bytes, wait=wait)
        except TransferError as error:
            tell.say(f"not from {error}")
            return False
        problem = _problem(file, partial, tell)
        if problem is None:
            complete(path)
            return True
        aside = set_aside(partial, path.name)
        discard(path)
        tell.say(f"not from {url}: {problem}; it is kept as {aside.name} and not used")
        if not kept:
            break
    return False


def set_aside(path: Path, name: str | None = None) -> Path:
    """Rename a file that is not the right one to `<name>.differs`, or `.differs-2` and so on; returns the new path.

    An earlier one goes only where it is the same to the byte. name: None for the file's own.
    """
    aside, number = path.with_name(f"{name or path.name}.differs"), 1
    while aside.exists() and not filecmp.cmp(path, aside, shallow=False):
        number += 1
        aside = path.with_name(f"{name or path.name}.differs-{number}")
    os.replace(path, aside)
    return aside


def sha256_of(path: Path, tell: Tell) -> str:
    """Hexadecimal sha256 of a file."""
    digest = hashlib.sha256()
    size, done = path.stat().st_size, 0
    whole = max(-(-size // MEGABYTE), 1)
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            done += len(chunk)
            if whole > 100:  # below, it takes no time
                tell.on_progress(f"checking {path.name}, MB", whole if done == size else done // MEGABYTE, whole)
    return digest.hexdigest()


def _problem(file: SourceFile, path: Path, tell: Tell) -> str | None:
    """How the bytes at `path` differ from the file's; None where they do not, as far as is known."""
    size = path.stat().st_size
    if file.is_size_known and size != file.size:
        return f"expected {file.size:,} bytes, found {size:,}"
    if not file.is_size_known and not size:
        return "expected a file, found an empty one"
    if file.sha256 is None:
        return None
    found = sha256_of(path, tell)
    return None if found == file.sha256 else f"expected sha256 {file.sha256}, found {found}"
