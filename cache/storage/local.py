"""Stores in a folder: zarr's local store, with files that are there whole or not at all, and stay through a power cut.

After a power cut a file that was renamed into its place may be empty, and a folder may lack it, unless both were
synced to the disk. The files of a part are synced all at once, so that the file system's journal takes them together,
before the one that makes the part exist.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from zarr.storage import LocalStore

from semires.cache.storage.documents import METADATA

# Syncs wait for the disk and compute nothing; each holds a file open, of which some systems allow few.
_SYNCS_AT_ONCE = 8
# Of a deletion that another process does too; it fails at most once a file that the other was faster at.
_DELETE_TRIES = 1000
# What file systems without hard links (FAT, some of networks) say, and those that sync no folders.
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_NO_FOLDER_SYNC = (errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.EOPNOTSUPP, errno.EACCES)
_PARTIAL = ".partial"  # as zarr ends the names of such files


def is_debris(name: str) -> bool:
    """Whether a file is the unfinished one of an atomic write that was killed."""
    return name.endswith(_PARTIAL)


class LocalFiles(LocalStore):
    """zarr's LocalStore with what `Storage` does to files; every method raises OSError where it is refused."""

    def __init__(self, root: Path | str, *, read_only: bool = False) -> None:
        super().__init__(root, read_only=read_only)
        self._unsynced: set[Path] = set()

    def names(self, path: str) -> list[str]:
        """Names directly under `path`; none where it is no folder."""
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return os.listdir(self.root / path)
        return []

    def num_bytes(self, path: str) -> int:
        """Bytes stored below `path`; files that a writer renames or deletes meanwhile count or do not."""
        total = 0
        for folder, _, names in os.walk(self.root / path):
            for name in names:
                with contextlib.suppress(FileNotFoundError):
                    total += os.path.getsize(os.path.join(folder, name))
        return total

    def put(self, key: str, pieces: Iterable[Any], *, replace: bool = True, durable: bool = False) -> bool:
        """Write the bytes of `pieces` as one file; without `replace` one that is there stays, and False is returned.

        `durable` returns when the file is on the disk under its name; else `sync_below` sees to that.
        """
        path = self.root / key
        changed = _make_folder(path.parent)
        partial = path.with_name(f"{path.name}.{secrets.token_hex(8)}{_PARTIAL}")
        try:
            with open(partial, "xb") as file:
                file.writelines(pieces)
                if durable:
                    file.flush()
                    os.fsync(file.fileno())
            if replace:
                os.replace(partial, path)
            is_written = replace or _link(partial, path)
        finally:
            partial.unlink(missing_ok=True)
        if durable:
            _sync_all([path.parent, *changed])
        else:
            self._unsynced.add(path)
        return is_written

    def sync_below(self, path: str) -> None:
        """Return when all that was put below `path` is on the disk, with the folders that lead there."""
        files = {file for file in self._unsynced if file.is_relative_to(self.root / path)}
        folders = {folder for file in files for folder in file.parents if folder.is_relative_to(self.root)}
        _sync_all([*files, *folders])
        self._unsynced -= files

    def delete_all(self, path: str) -> None:
        """Delete everything at `path`, metadata first: what a kill or a power cut leaves does not look finished.

        Another process that deletes the same at the same time is no obstacle.
        """
        folder = self.root / path
        self._unsynced = {file for file in self._unsynced if not file.is_relative_to(folder)}
        for tries_left in reversed(range(_DELETE_TRIES)):
            try:
                (folder / METADATA).unlink(missing_ok=True)
                _sync(folder)
                if folder.is_dir():
                    shutil.rmtree(folder)
                return
            except FileNotFoundError:  # the other took a file first; each time there are fewer
                if not tries_left:
                    raise


def _make_folder(folder: Path) -> list[Path]:
    """Make the folder with all above it; returns the folders in which there is a new one."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return [each.parent for each in missing]


def _link(partial: Path, path: Path) -> bool:
    """Give a file its name unless there is one of that name; returns whether there was none."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if path.exists():
            return False
        os.replace(partial, path)
    return True


def _sync_all(paths: Iterable[Path]) -> None:
    with ThreadPoolExecutor(_SYNCS_AT_ONCE) as pool:
        for _ in pool.map(_sync, paths):
            pass


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk; one that another process took away meanwhile, there is no need."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    except OSError as error:
        if path.is_dir() and error.errno in _NO_FOLDER_SYNC:
            return
        raise
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not (path.is_dir() and error.errno in _NO_FOLDER_SYNC):
            raise
    finally:
        os.close(descriptor)
