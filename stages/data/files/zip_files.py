"""Zips of others, opened and read: whatever `zipfile` and its decompressors raise of a damaged one is one error."""

import errno
import lzma
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class ArchiveError(Exception):
    """The archive is damaged, or not what it should be: one line. Nothing of it is used."""


@contextmanager
def reading_zip() -> Iterator[None]:
    """A block that opens a zip or reads an entry: `ArchiveError` for all that is damaged in it.

    Errors of the system, such as a full disk where the bytes go, stay what they are.
    """
    try:
        yield
    # A wrong checksum, a stream that is no such or cut off, encryption, an unknown method, a place beyond the file.
    except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, OverflowError) as error:
        raise _damaged(error) from error
    except UnicodeDecodeError as error:  # a name of an entry
        raise _damaged(error) from error
    except OSError as error:
        # bz2 raises one without a number of the system's; a place before the file's beginning is EINVAL.
        if error.errno not in (None, errno.EINVAL):
            raise
        raise _damaged(error) from error


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The zip at `path`, whose entries are then read within `reading_zip`. `ArchiveError` where it is none."""
    try:
        with reading_zip():
            opened = zipfile.ZipFile(path)
    except (OSError, ValueError) as error:
        raise _damaged(error) from error
    with opened:
        yield opened


def _damaged(error: Exception) -> ArchiveError:
    reason = " ".join(str(error).split()) or type(error).__name__
    return ArchiveError(f"expected a whole zip archive, found a damaged or other file ({reason})")
