"""The archives of lichengunc/refer (`refcoco.zip`, `refcoco+.zip`, `refcocog.zip`), zipped or unpacked.

Each holds a folder of the data set's name with `refs(<by>).p` and `instances.json`. Of a zip, which anybody may have
packed, no entry's path is ever a path of ours: two entries are looked for by their names, and their bytes, as many as
such a file may have, are written under our own.
"""

import zipfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath
from typing import IO, Protocol

from semires.stages.data.errors import InputError
from semires.stages.data.files.zip_files import ArchiveError, open_zip, reading_zip
from semires.stages.data.splits import SPLITS

# Several times what the published ones have.
MAX_REFS, MAX_INSTANCES = 512 << 20, 2 << 30
_CHUNK = 1 << 20


class Archive(Protocol):
    """Files of a source by the name of their folder in it and their own."""

    source: Path
    name: str
    """What files that lie in no folder of it are taken to be of."""

    def folders_with(self, name: str) -> list[str]:
        """The folders that hold a file of this name; "" is the source itself."""

    def copy(self, folder: str, name: str, target: Path, limit: int) -> None:
        """Copy a file to `target`; InputError where it is damaged or larger than `limit` bytes."""


class FolderArchive:
    """An unpacked archive: a folder with the files, or with folders that hold them."""

    def __init__(self, source: Path) -> None:
        self.source = source
        self.name = source.resolve().name

    def folders_with(self, name: str) -> list[str]:
        """As `Archive`."""
        inner = sorted(path.name for path in self.source.iterdir() if (path / name).is_file())
        return [""] * (self.source / name).is_file() + inner

    def copy(self, folder: str, name: str, target: Path, limit: int) -> None:
        """As `Archive`."""
        with (self.source / folder / name).open("rb") as file:
            _copy(file, target, limit, str(self.source / folder / name))


class ZipArchive:
    """A zip with the files, in whatever folder."""

    def __init__(self, source: Path, zip_file: zipfile.ZipFile) -> None:
        self.source = source
        self.name = source.stem
        self._zip = zip_file
        # Beside each file, a Mac packs one of its own into a folder __MACOSX.
        self._entries = [
            entry for entry in zip_file.infolist() if not entry.is_dir() and "__MACOSX" not in entry.filename
        ]

    def folders_with(self, name: str) -> list[str]:
        """As `Archive`."""
        return sorted({_folder(entry) for entry in self._entries if PurePosixPath(entry.filename).name == name})

    def copy(self, folder: str, name: str, target: Path, limit: int) -> None:
        """As `Archive`."""
        entry = next(e for e in self._entries if PurePosixPath(e.filename).name == name and _folder(e) == folder)
        try:
            with reading_zip(), self._zip.open(entry) as file:
                _copy(file, target, limit, f"{self.source}: {entry.filename}")
        except ArchiveError as error:
            raise InputError(f"{self.source}: {entry.filename!r}: {error}; get it again") from error


@contextmanager
def open_archive(source: Path) -> Iterator[Archive]:
    """The archive at `source`, a folder or a zip; InputError where it is neither."""
    if source.is_dir():
        yield FolderArchive(source)
        return
    with ExitStack() as stack:
        try:
            zip_file = stack.enter_context(open_zip(source))
        except ArchiveError as error:
            raise InputError(f"{source}: {error}; get it again") from error
        yield ZipArchive(source, zip_file)


def folder_of(archive: Archive, name: str, wanted: str, others: Collection[str]) -> str:
    """The folder of an archive in which a file of this name belongs to the data set `wanted`.

    That is the one called so, else the only one there is, unless it is called after one of `others`: the files of the
    data sets have the same names. InputError where there is none or no telling.
    """
    folders = archive.folders_with(name)
    called = {folder: PurePosixPath(folder).name or archive.name for folder in folders}
    fitting = [folder for folder in folders if called[folder] == wanted]
    if not fitting:
        fitting = [folder for folder in folders if called[folder] not in others]
    if len(fitting) == 1:
        return fitting[0]
    found = ", ".join(f"{called[folder]}/{name}" for folder in folders) or "none"
    raise InputError(
        f"{archive.source}: expected {name} in a folder {wanted}, found {found}; is --split the data set that this is?"
    )


def copy_refer_files(archive: Archive, by: str, wanted: str, refs: Path, instances: Path) -> None:
    """Copy the two files of the data set `wanted`, split by `by`; InputError where one is missing or too large."""
    others = {spec.folder for spec in SPLITS.values()} - {wanted}
    folder = folder_of(archive, f"refs({by}).p", wanted, others)
    if folder not in archive.folders_with("instances.json"):
        raise InputError(
            f"{archive.source}: expected instances.json beside refs({by}).p, found none; the archive is not whole"
        )
    refs.parent.mkdir(parents=True, exist_ok=True)
    archive.copy(folder, f"refs({by}).p", refs, MAX_REFS)
    archive.copy(folder, "instances.json", instances, MAX_INSTANCES)


def _folder(entry: zipfile.ZipInfo) -> str:
    folder = str(PurePosixPath(entry.filename).parent)
    return "" if folder == "." else folder


def _copy(file: IO[bytes], target: Path, limit: int, what: str) -> None:
    left = limit
    with target.open("wb") as copy:
        # Counted as it comes: the size that a zip states may be another.
        while chunk := file.read(_CHUNK):
            left -= len(chunk)
            if left < 0:
                raise InputError(f"{what}: expected at most {limit:,} bytes, found more; is it what it is named after?")
            copy.write(chunk)
