"""Listing: the picture files below a folder, and what is left out of it, in words.

Linked folders are followed, each folder once: loops end, and of two ways to a picture the one without links counts.
Hidden entries are left out, and those that systems make of their own: a preview or a trashed file is no photograph.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from semires.stages.data.errors import printable
from semires.stages.data.images import picture_suffixes

_SYSTEM = frozenset({"@eadir", "__macosx", "#recycle", "$recycle.bin", "system volume information", "lost+found"})
# Never pictures, and in nearly every folder of their systems: not worth a word.
_DEBRIS = frozenset({".ds_store", "thumbs.db", "desktop.ini"})
# Endings and folders that are named of what is left out.
_NUM_NAMED = 5


@dataclass(kw_only=True)
class FolderListing:
    """What is below a folder. Names of files may be of any bytes (Python's surrogates)."""

    paths: list[Path] = field(default_factory=list)
    """Files whose ending is a picture's, sorted."""
    other: Counter[str] = field(default_factory=Counter)
    """Other files, by ending in lower case; "" for none."""
    num_hidden: int = 0
    """Hidden and system folders, and hidden files with a picture's ending."""
    broken: list[Path] = field(default_factory=list)
    """Links to nothing."""
    unreadable: list[Path] = field(default_factory=list)
    """Folders that cannot be listed."""

    def left_out(self) -> str:
        """What is left out, such as "12 files of no picture format (7 .txt, 5 .heic), 1 broken link (a.jpg)"; "" where
        nothing is."""
        named = [
            f"{number} {printable(ending) or 'without ending'}"
            for ending, number in sorted(self.other.items(), key=lambda item: (-item[1], item[0]))
        ]
        parts = [
            (self.other.total(), "file", "files", f" of no picture format ({_some(named)})"),
            (self.num_hidden, "hidden or system entry", "hidden or system entries", ""),
            (len(self.broken), "broken link", "broken links", f" ({_names(self.broken)})"),
            (len(self.unreadable), "folder", "folders", f" that cannot be read ({_names(self.unreadable)})"),
        ]
        return ", ".join(f"{found} {one if found == 1 else many}{more}" for found, one, many, more in parts if found)


def list_folder(folder: Path) -> FolderListing:
    """List what is below `folder`; no file is opened."""
    listing = FolderListing()
    seen: set[tuple[int, int]] = set()
    linked: list[Path] = []
    # All real folders first, then what links lead to, in the order of their paths.
    waiting = [folder]
    while waiting or linked:
        current = waiting.pop() if waiting else linked.pop(linked.index(min(linked)))
        try:
            status = current.stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(current) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except OSError:
            listing.unreadable.append(current)
            continue
        folders = list(_sort(entries, listing))
        waiting += [Path(entry) for entry in folders if not entry.is_symlink()]
        linked += [Path(entry) for entry in folders if entry.is_symlink()]
    listing.paths.sort()
    return listing


def _sort(entries: list[os.DirEntry[str]], listing: FolderListing) -> Iterator["os.DirEntry[str]"]:
    """Put the files among `entries` where they belong; gives back the folders to look into."""
    for entry in entries:
        name = entry.name.lower()
        suffix = os.path.splitext(name)[1]
        is_picture, is_hidden = suffix in picture_suffixes(), name.startswith(".") or name in _SYSTEM
        kind = _kind(entry)
        if name in _DEBRIS:
            continue
        if is_hidden:
            listing.num_hidden += is_picture or kind == "folder"
        elif kind == "folder":
            yield entry
        elif kind == "nothing":
            listing.broken.append(Path(entry))
        elif is_picture and kind == "file":
            listing.paths.append(Path(entry))
        else:
            listing.other[suffix] += 1


def _kind(entry: os.DirEntry[str]) -> str:
    """What is there, links followed."""
    try:
        if entry.is_dir():
            return "folder"
        if entry.is_file():
            return "file"
        entry.stat()
    except OSError:  # also a link to itself
        return "nothing"
    return "other"


def _names(paths: list[Path]) -> str:
    return _some([printable(path.name) for path in sorted(paths)])


def _some(named: list[str]) -> str:
    return ", ".join(named[:_NUM_NAMED]) + (", …" if len(named) > _NUM_NAMED else "")
