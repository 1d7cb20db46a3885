"""A data set or weights by name, from the first byte to the place where commands look for it."""

import json
import os
import re
import shlex
from pathlib import Path

from semires.stages.data.download.archive import unpack
from semires.stages.data.download.files import fetch_file, set_aside
from semires.stages.data.download.sources import DOWNLOADS, SOURCES, Source, SourceFile
from semires.stages.data.download.telling import Tell
from semires.stages.data.download.transfer import partial_of, require_space, size_of
from semires.stages.data.errors import InputError
from semires.stages.data.files.zip_files import ArchiveError


def find_sources(names: list[str]) -> list[Source]:
    """The sources of these names, each once; InputError for one that is not known."""
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise InputError(f"expected one of {', '.join(SOURCES)}, found {unknown[0]!r}; choose from these")
    return [SOURCES[name] for name in dict.fromkeys(names)]


def check_mirror(mirror: str | None) -> str | None:
    """The mirror, or None for an empty one; InputError unless it is an http or https address."""
    if mirror and not re.match(r"https?://[^/\s]", mirror):
        raise InputError(f"--from: expected an address such as https://host/folder, found {mirror!r}; change it")
    return mirror or None


def check_room(sources: list[Source], root: Path, *, keep_archive: bool = False) -> None:
    """InputError unless the disk has room for all of these, fetched one after the other."""
    needed = most = 0
    for source in sources:
        if not is_here(source, root):
            fetched, unpacked = _space_of(source, root)
            most = max(most, needed + fetched + unpacked)
            needed += unpacked if source.unpacking is not None and not keep_archive else fetched + unpacked
    require_space(root, most)


def _space_of(source: Source, root: Path) -> tuple[int, int]:
    """Bytes that are still to come of a source's files, and those of what is unpacked."""
    paths = {file: root / source.folder / file.path for file in source.files}
    missing = [file for file, path in paths.items() if not path.is_file()]
    to_come = sum(max(file.size - size_of(partial_of(paths[file])), 0) for file in missing)
    return to_come, 0 if source.unpacking is None else source.unpacking.size


def download(
    source: Source,
    root: Path,
    tell: Tell,
    *,
    mirror: str | None = None,
    keep_archive: bool = False,
    wait: float = 2.0,
) -> None:
    """Put a source where commands look for it, below the data root; what is there and right is said and stays.

    mirror: an address in place of the published ones. keep_archive: leave the archive in `DOWNLOADS` after unpacking.
    wait: seconds before a second attempt at a mirror.

    Raises `InputError` when no mirror gives a file, there is no room, or a folder cannot be written; what has come so
    far is kept, and the next call goes on with it.
    """
    if source.unpacking is not None and _is_unpacked(source, root, tell):
        return
    paths = {file: root / source.folder / file.path for file in source.files}
    require_space(root, sum(_space_of(source, root)))
    for file, path in paths.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            fetch_file(file, path, tell, mirror=mirror, wait=wait)
        except OSError as error:
            raise InputError(f"{path}: expected a file that can be written, found {error.strerror or error}") from error
    if source.unpacking is not None:
        _unpack(source, root, tell, keep_archive)
    target = source.target(root)
    use = f"; use it with {source.option.format(shlex.quote(str(target)))}" if source.option else ""
    tell.say(f"{source.name}: {target}{use}")


def is_here(source: Source, root: Path) -> bool:
    """Whether the source's files are there, by name and size alone."""
    if source.unpacking is not None:
        return _is_unpacked(source, root, Tell())
    return all(_is_whole(file, root / source.folder / file.path) for file in source.files)


def _is_whole(file: SourceFile, path: Path) -> bool:
    return path.is_file() and (not file.is_size_known or path.stat().st_size == file.size)


def _unpack(source: Source, root: Path, tell: Tell, keep_archive: bool) -> None:
    (file,) = source.files
    assert source.unpacking is not None
    archive = root / source.folder / file.path
    try:
        files = unpack(archive, source.target(root), source.unpacking, tell)
    except ArchiveError as error:
        raise InputError(
            f"{archive}: {error}; it is kept as {set_aside(archive).name} and not used; give another mirror with --from"
        ) from error
    record = _record_of(source, root)
    temporary = record.with_name(f"{record.name}.new")
    temporary.write_text(json.dumps({"sha256": file.sha256, "files": files}) + "\n", encoding="utf-8")
    os.replace(temporary, record)
    if not keep_archive:
        archive.unlink()
        tell.say(f"{archive}: unpacked and removed (--keep-archive keeps it)")


def _is_unpacked(source: Source, root: Path, tell: Tell) -> bool:
    """Whether all that an archive holds is in its folder, by the record of its unpacking; without one, by the files
    that it must have."""
    unpacking, folder = source.unpacking, source.target(root)
    assert unpacking is not None
    if not folder.is_dir():
        return False
    try:
        sizes = {entry.name: entry.stat().st_size for entry in os.scandir(folder) if entry.is_file()}
    except OSError as error:
        raise InputError(f"{folder}: expected a folder that can be read, found {error.strerror or error}") from error
    recorded = _read_record(source, root)
    if recorded is not None:
        wrong = [name for name, size in recorded.items() if "/" not in name and sizes.get(name) != size]
        if not wrong:
            tell.say(f"{source.name}: here, {len(recorded):,} files in {folder} as they were unpacked; not fetched")
            return True
        tell.say(f"{folder}: {len(wrong):,} of {len(recorded):,} files are missing or changed, such as {wrong[0]}")
        return False
    lacking = [name for name in unpacking.needed if name not in sizes]
    if not lacking and len(sizes) >= unpacking.num_files:
        tell.say(
            f"{source.name}: here, {len(sizes):,} files in {folder} that this command did not put there; not fetched, "
            "not compared"
        )
        return True
    tell.say(f"{folder}: there, but not whole: " + (f"no {lacking[0]}" if lacking else f"{len(sizes):,} files"))
    return False


def _record_of(source: Source, root: Path) -> Path:
    return root / DOWNLOADS / f"{source.name}.json"


def _read_record(source: Source, root: Path) -> dict[str, int] | None:
    try:
        record = json.loads(_record_of(source, root).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    files = record.get("files") if isinstance(record, dict) else None
    return files if isinstance(files, dict) else None
