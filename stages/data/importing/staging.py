"""Files of a data set on their way below the data root: written aside, compared, then renamed into their places."""

import filecmp
import json
import os
import pickle
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.files.placing import move_beside
from semires.stages.data.splits import SplitSpec


@contextmanager
def staging_folder(root: Path, name: str) -> Iterator[Path]:
    """A new folder below the data root, so that what lies in it can be renamed into its place; removed at the end.

    What killed imports left there is removed too: whoever shares the root with others holds a lock on it.
    """
    root.mkdir(parents=True, exist_ok=True)
    for left in root.glob(".import-*"):
        shutil.rmtree(left, ignore_errors=True)
    staging = root / f".import-{name}-{os.getpid()}"
    staging.mkdir()
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def refs_file(folder: Path, spec: SplitSpec) -> Path:
    """Where a data root or a staging folder holds the refs of a data set."""
    return folder / spec.folder / f"refs({spec.by}).p"


def instances_file(folder: Path, spec: SplitSpec) -> Path:
    """Where a data root or a staging folder holds the images and annotations of a data set."""
    return folder / spec.folder / "instances.json"


def write_refs(path: Path, refs: list[dict[str, Any]]) -> None:
    """Write the records of `refs(<by>).p`, in the pickle protocol of REFER's own files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(refs, protocol=2))


def write_instances(path: Path, instances: dict[str, Any]) -> None:
    """Write instances.json."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(instances), encoding="utf-8")


def put_in_place(staging: Path, root: Path, *, overwrite: bool) -> int:
    """Move every file below `staging` to its place below the data root; returns how many were new or changed.

    A file that is there with the same content is left as it is. InputError, before anything is moved, where one has
    other content and it is not to be overwritten, and where there is no room. The refs go last: without them there is
    no data set, so that a process killed in between leaves no old refs beside new instances. Refs of the same folder
    that are not staged (refcocog's other division) stay as they are.
    """
    files = [path.relative_to(staging) for path in sorted(staging.rglob("*")) if path.is_file()]
    new = [path for path in files if not _is_same(staging / path, root / path)]
    different = [root / path for path in new if (root / path).exists()]
    if different and not overwrite:
        more = f" and {len(different) - 1} more" if len(different) > 1 else ""
        raise InputError(
            f"{different[0]}{more}: expected no such file or one of the same content, found another; nothing was "
            "changed: give another --data, move it away, or replace it with --overwrite"
        )
    # All of them beside their places first: a folder there may be a link to another disk, which may be full.
    beside: dict[Path, Path] = {}
    try:
        for path in new:
            beside[path] = move_beside(staging / path, root / path)
        refs = [path for path in new if path.suffix == ".p"]
        for path in refs if len(new) > len(refs) else []:
            (root / path).unlink(missing_ok=True)
        for path in [path for path in new if path not in refs] + refs:
            beside[path].replace(root / path)
    except OSError as error:
        raise InputError(
            f"{root}: expected a folder that can be written, found {error.strerror or error}; make room, or give "
            "another --data"
        ) from error
    finally:
        for path in beside.values():
            path.unlink(missing_ok=True)
    return len(new)


def _is_same(new: Path, old: Path) -> bool:
    return old.is_file() and filecmp.cmp(new, old, shallow=False)
