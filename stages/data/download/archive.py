"""Archives of others, unpacked: nothing outside of the folder that is meant, and all of it or nothing."""

import filecmp
import os
import shutil
import stat
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

from semires.stages.data.download.files import set_aside
from semires.stages.data.download.sources import Unpacking
from semires.stages.data.download.telling import Tell
from semires.stages.data.download.transfer import CHUNK, require_space
from semires.stages.data.errors import InputError
from semires.stages.data.files.placing import move_beside
from semires.stages.data.files.zip_files import ArchiveError, open_zip, reading_zip


def unpack(archive: Path, folder: Path, unpacking: Unpacking, tell: Tell) -> dict[str, int]:
    """Unpack what is wanted of a zip archive into `folder`; returns the files' names with their sizes in bytes.

    All is written into a folder beside it first, checksums compared, and moved in one step. Where `folder` is there
    already, its own files stay: those that are the same as they are, others set aside, and said.

    Raises `ArchiveError` when a name leads out of the folder, a file is a link, a checksum is wrong or what is wanted
    is not in it; `InputError` when there is no room or the folder cannot be written.
    """
    beside = folder.with_name(f".{folder.name}.unpacking")
    with open_zip(archive) as opened:
        members = _wanted(opened, unpacking, tell)
        try:
            if beside.exists():  # of a process that was killed
                shutil.rmtree(beside)
            require_space(folder.parent, sum(member.file_size for member in members.values()))
            beside.mkdir(parents=True)
            _extract(opened, members, beside, f"unpacking {archive.name}, files", tell)
            if not folder.exists():
                beside.rename(folder)
            else:
                _merge(beside, folder, list(members), tell)
        except OSError as error:
            raise InputError(
                f"{folder}: expected a folder that can be written, found {error.strerror or error}; make room, or give "
                "another --data; the archive is kept, and the same command unpacks it"
            ) from error
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return {name: member.file_size for name, member in members.items()}


def _wanted(opened: zipfile.ZipFile, unpacking: Unpacking, tell: Tell) -> dict[str, zipfile.ZipInfo]:
    """The files to unpack by their names below the folder."""
    members: dict[str, zipfile.ZipInfo] = {}
    others = []
    for member in opened.infolist():
        _check_name(member)
        if member.is_dir():
            continue
        folder, _, name = member.filename.partition("/")
        if folder != unpacking.inside or not name:
            others.append(member.filename)
        elif name in members:
            raise ArchiveError(f"expected each name once, found {member.filename!r} twice")
        else:
            members[name] = member
    missing = [name for name in unpacking.needed if name not in members]
    if missing or len(members) < unpacking.num_files:
        wanted = ", ".join(unpacking.needed) or f"{unpacking.num_files:,} files"
        lacks = f"no {' and no '.join(missing)}" if missing else f"{len(members):,}"
        raise ArchiveError(f"expected a folder {unpacking.inside}/ with {wanted} in it, found {lacks}")
    if others:
        tell.say(
            f"left out: {len(others)} files of the archive that are not in {unpacking.inside}/, "
            f"{', '.join(others[:3])}{', …' if len(others) > 3 else ''}"
        )
    return members


def _check_name(member: zipfile.ZipInfo) -> None:
    """ArchiveError unless a member's name stays below the folder that it is unpacked in, on any system."""
    name = member.orig_filename
    parts = PurePosixPath(name).parts
    leads_out = (
        not parts
        or ".." in parts
        or name.startswith("/")
        or "\\" in name
        or "\0" in name
        or any(PureWindowsPath(part).drive for part in parts)
    )
    if leads_out:
        raise ArchiveError(f"expected names below one folder, found {name!r}, which leads elsewhere")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise ArchiveError(f"expected files, found a link, {name!r}")


def _extract(opened: zipfile.ZipFile, members: dict[str, zipfile.ZipInfo], beside: Path, what: str, tell: Tell) -> None:
    for done, (name, member) in enumerate(members.items(), start=1):
        target = beside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file, reading_zip(), opened.open(member) as source:
            shutil.copyfileobj(source, file, CHUNK)
        tell.on_progress(what, done, len(members))


def _merge(beside: Path, folder: Path, names: list[str], tell: Tell) -> None:
    """Move files into a folder that has some already."""
    num_same, differing = 0, []
    for name in names:
        target = folder / name
        if target.is_file() and filecmp.cmp(beside / name, target, shallow=False):
            num_same += 1
            continue
        placed = move_beside(beside / name, target)
        if target.is_file():
            differing.append(set_aside(target).name)
        os.replace(placed, target)
    tell.say(f"{folder} was there with {num_same:,} of {len(names):,} files, which stay as they were")
    if differing:
        tell.say(
            f"{len(differing):,} files there were others, and are kept as {', '.join(differing[:3])}"
            f"{', …' if len(differing) > 3 else ''}"
        )
