"""One file over HTTP into a partial file, which a later call goes on with.

The standard library's client is enough: huggingface_hub brings another one with each of its releases (requests, httpx,
httpx2), and none of them resumes by itself.
"""

import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import IO, Any

from semires.stages.data.errors import InputError

CHUNK = 1 << 20
TIMEOUT = 60.0
"""Seconds that a server may be silent."""
TRIES = 4
"""Attempts in a row that bring nothing, before a mirror is given up."""
PASSING = {408, 425, 429, 500, 502, 503, 504}
"""Statuses that another attempt may not meet again."""

OnBytes = Callable[[int, int | None], None]  # (bytes here, bytes of the whole file where that is known)


class TransferError(Exception):
    """A mirror did not give the file: one line that says what it did."""


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """What the bytes of a partial file are of."""

    url: str
    validator: str | None = None
    """The server's word for this version of the file: a strong ETag, else when it was last modified."""
    size: int | None = None


def partial_of(path: Path) -> Path:
    """Where the bytes of `path` lie until all of them are there."""
    return path.with_name(f"{path.name}.partial")


def transfer(
    url: str,
    path: Path,
    *,
    size: int | None,
    is_checked: bool,
    on_bytes: OnBytes | None = None,
    wait: float = 2.0,
    timeout: float = TIMEOUT,
) -> int:
    """Fetch `url` into `partial_of(path)`; returns how many bytes of it an earlier call had brought.

    An earlier call's bytes are kept where the server says that they are of the same version (If-Range), and where a
    checksum will tell (`is_checked`), also another mirror's; a server that knows no ranges sends all again. size: the
    bytes that the file must have, None where they are not known. wait: seconds before a second attempt, twice as many
    before each further one.

    Raises `TransferError` when the server does not give the file, or one of another size; `InputError` when the disk is
    full or cannot be written.
    """
    partial = partial_of(path)
    kept = size_of(partial)
    failures, has_served = 0, False
    while True:
        before = size_of(partial)
        try:
            start, is_whole = _attempt(url, path, size, is_checked, on_bytes or (lambda done, total: None), timeout)
            kept = min(kept, start)
            if is_whole:
                return kept
            reason = f"the connection ended after {size_of(partial):,} bytes"
            passes = True
        except InputError:
            raise
        except urllib.error.HTTPError as error:
            error.close()
            reason, passes = f"HTTP {error.code} {error.reason}", error.code in PASSING
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = _reason(error)
            # What urllib wraps while connecting; later errors come bare.
            wrapped = error.reason if isinstance(error, urllib.error.URLError) else None
            passes = isinstance(wrapped or error, TimeoutError | http.client.HTTPException | ConnectionError)
            passes = passes or (wrapped is not None and has_served)
        came = size_of(partial) > before
        has_served = has_served or came
        failures = 0 if came else failures + 1
        if failures >= TRIES or not (passes or came):
            raise TransferError(f"{url}: {reason}")
        time.sleep(wait * 2**failures)


def _attempt(
    url: str, path: Path, size: int | None, is_checked: bool, on_bytes: OnBytes, timeout: float
) -> tuple[int, bool]:
    """One request: how many bytes it left as they were, and whether the partial file is whole now.

    Errors of the network are urllib's own."""
    partial = partial_of(path)
    begun = _read_begun(partial)
    offset = size_of(partial)
    expected = size if size is not None else begun.size if begun is not None and begun.url == url else None
    if offset and offset == expected:
        return offset, True
    is_same = begun is not None and begun.url == url
    if not (is_same or is_checked) or (expected is not None and offset > expected):
        offset = 0
    headers = {"User-Agent": "semires", "Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
        if is_same and begun is not None and begun.validator is not None:
            headers["If-Range"] = begun.validator
    try:
        response = _OPENER.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        if error.code != 416:
            raise
        error.close()
        partial.unlink(missing_ok=True)  # it is longer than the file is now
        return 0, False
    with response:
        start, total = _range_of(response)
        if start not in (0, offset):
            raise ValueError(f"asked for what follows byte {offset:,}, sent what follows {start:,}")
        if size is not None and total is not None and total != size:
            raise TransferError(f"{url}: serves {total:,} bytes, expected {size:,}")
        if total is not None:
            require_space(path.parent, total - start)
        begun = _Begun(url=url, validator=_validator(response), size=total)
        ended = _write(partial, start, response, begun, on_bytes, size)
    return start, ended and (total is None or size_of(partial) == total)


def _write(
    partial: Path,
    start: int,
    response: http.client.HTTPResponse,
    begun: _Begun,
    on_bytes: OnBytes,
    most: int | None,
) -> bool:
    """Append what comes to the first `start` bytes of the partial file; False where the connection broke.

    TransferError where more than `most` bytes come, of a server that says no length: they might never end."""
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("r+b" if start else "wb") as file:
            file.truncate(start)
            file.seek(start)
            # After the truncation: a note must never be newer than the bytes that it is about.
            _note_of(partial).write_text(json.dumps(vars(begun)) + "\n", encoding="utf-8")
            on_bytes(start, begun.size)
            while chunk := _read(response):
                file.write(chunk)
                start += len(chunk)
                if most is not None and start > most:
                    raise TransferError(f"{begun.url}: sends more than the {most:,} bytes expected")
                on_bytes(start, begun.size)
            return True
    except _Cut:
        return False
    except OSError as error:
        raise InputError(
            f"{partial}: expected a file that can be written, found {error.strerror or error}; make room or give "
            "another --data; what has come is kept, and the same command goes on with it"
        ) from error


class _Cut(Exception):
    """The connection ended early: not the disk's error, which is an OSError too."""


def _read(response: http.client.HTTPResponse) -> bytes:
    try:
        return response.read(CHUNK)
    except (OSError, http.client.HTTPException) as error:
        raise _Cut from error


def require_space(folder: Path, needed: int) -> None:
    """InputError unless the disk of `folder`, which need not exist, has room for so many bytes."""
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise InputError(
            f"{folder}: expected {needed / 1e9:.2f} GB of free disk space, found {free / 1e9:.2f} GB; make room, or "
            "give a --data on another disk"
        )


def discard(path: Path) -> None:
    """Remove what has come of `path` so far."""
    partial_of(path).unlink(missing_ok=True)
    _note_of(partial_of(path)).unlink(missing_ok=True)


def complete(path: Path) -> None:
    """Make the whole partial file `path`."""
    os.replace(partial_of(path), path)
    _note_of(partial_of(path)).unlink(missing_ok=True)


def _note_of(partial: Path) -> Path:
    return partial.with_name(f"{partial.name}.json")


def _read_begun(partial: Path) -> _Begun | None:
    try:
        return _Begun(**json.loads(_note_of(partial).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):  # none, or not ours: the bytes are then of nobody knows what
        return None


def size_of(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _range_of(response: http.client.HTTPResponse) -> tuple[int, int | None]:
    """Where in the file the answer begins, and how long the file is where the server says so."""
    if response.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", "").strip())
        if found is None:
            raise ValueError("a part without its Content-Range")
        return int(found[1]), None if found[2] == "*" else int(found[2])
    length = response.headers.get("Content-Length", "")
    return 0, int(length) if length.isascii() and length.isdigit() else None


def _validator(response: http.client.HTTPResponse) -> str | None:
    etag = response.headers.get("ETag")
    if etag and not etag.startswith("W/"):  # If-Range takes strong ones only
        return str(etag)
    modified = response.headers.get("Last-Modified")
    return None if modified is None else str(modified)


def _reason(error: Exception) -> str:
    inner = error.reason if isinstance(error, urllib.error.URLError) else error
    return " ".join(str(inner).split()) or type(inner).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows from http to https, never back: what came encrypted must not end in the open."""

    def redirect_request(
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: Message, newurl: str
    ) -> urllib.request.Request | None:
        """As urllib's."""
        if req.full_url.startswith("https:") and not newurl.startswith("https:"):
            raise urllib.error.URLError(f"it leads from https to {newurl.split(':')[0]}")
        return super().redirect_request(req, fp, code, msg, headers, newurl)  # type: ignore[arg-type]


_OPENER: Any = urllib.request.build_opener(_Redirects)
