"""What the operating system refuses (a full disk, no permission, a lost sector), as errors of one line of the store."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from semires.cache.errors import RESTORE, DamageError, StoreError

# A disk that cannot read a sector (EIO) lost it; a process that may not read, or has too many files open, lost nothing.
_LOST = (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EIO)


@contextlib.contextmanager
def writing(path: str) -> Iterator[None]:
    """Raise StoreError, naming `path`, in place of an OSError of what is written, created or deleted inside."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: expected to write, found {type(error).__name__}: {error}; make room or restore access, then run "
            "the same command again: it keeps what is finished"
        ) from error


@contextlib.contextmanager
def listing(path: str) -> Iterator[None]:
    """The same for names and sizes of files; no repair helps where they cannot be had, so none is damage."""
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{path}: expected a folder that can be listed, found {type(error).__name__}: {error}; "
            "make it readable and run the same command again"
        ) from error


def damaged(path: str, error: Exception) -> StoreError:
    """The error for what could not be read at `path`: DamageError where it is lost, StoreError where it is only out of
    reach; one that is a StoreError already, such as the network's, as it is.
    """
    if isinstance(error, StoreError):
        return error
    found = f"{path}: expected an intact column, found {type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno not in _LOST:
        return StoreError(f"{found}; make it readable and run the same again")
    return DamageError(f"{found}; {RESTORE}")
