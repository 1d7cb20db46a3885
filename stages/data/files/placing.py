"""Files on their way to a folder that may be a link to another disk, where no rename leads."""

import shutil
from pathlib import Path


def move_beside(source: Path, target: Path) -> Path:
    """Move a file to a name of its own in `target`'s folder, which is made; returns it, to be renamed to `target`.

    A full or another disk shows here, before anything that is in place is touched; the rename then crosses none. The
    name tells nothing of the process, so that what a killed one left is written over.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.placing")
    try:
        shutil.move(source, beside)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    return beside
