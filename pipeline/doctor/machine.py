"""The machine: system, memory, disks, limits. Needs nothing that could be broken."""

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from semires.pipeline.doctor.findings import Finding, gibibytes
from semires.pipeline.paths import Paths

# A run of RefShapes leaves some ten MB; a full disk ends with a line of its own.
_LEAST_DISK = 2**30
_LEAST_MEMORY = 2 * 2**30
_LEAST_FILES = 1024
_SHARED_MEMORY = Path("/dev/shm")
_CGROUPS = Path("/sys/fs/cgroup")
_OWN_CGROUPS = Path("/proc/self/cgroup")


def look_at_machine(paths: Paths) -> Iterator[Finding]:
    """Python and system, cores, memory, the disks that are written to, shared memory, open files."""
    yield Finding(what="Python", found=f"{platform.python_version()} at {sys.prefix}")
    yield Finding(what="system", found=platform.platform())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Finding(what="cores", found=f"{cores} that this process may use")
    yield _memory()
    for what, folder in (("data root", paths.data), ("runs", paths.runs)):
        yield _disk(what, folder)
    if _SHARED_MEMORY.is_dir():
        usage = shutil.disk_usage(_SHARED_MEMORY)
        found = f"{gibibytes(usage.free)} free of {gibibytes(usage.total)}"
        # Batches go through it while half of it stays free, else through pipes (stages/train/reading).
        if usage.free >= max(2**30, usage.total // 2):
            yield Finding(what=str(_SHARED_MEMORY), found=found)
        else:
            yield Finding(
                what=str(_SHARED_MEMORY),
                found=f"{found}: batches are copied through pipes where it is short",
                state="missing",
                remedy="docker run --shm-size 8g",
            )
    yield from _open_files()


def _memory() -> Finding:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limits = [limit for path in _limit_files() if (limit := _limit_of(path)) is not None and limit < total]
    found = gibibytes(min([total, *limits]))
    if limits:
        found += f", this container's or job's part of {gibibytes(total)}"
    if min([total, *limits]) < _LEAST_MEMORY:
        return Finding(what="memory", found=found, state="missing", remedy="RefShapes takes 2 GiB")
    return Finding(what="memory", found=found)


def _limit_files() -> Iterator[Path]:
    """Where the limits of this process's control groups stand: of its own, a Slurm job's for instance, and of those
    around it (cgroups(7); version 2 has one hierarchy, version 1 one for memory)."""
    try:
        lines = _OWN_CGROUPS.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, own = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        root, name = (_CGROUPS / "memory", "memory.limit_in_bytes") if controllers else (_CGROUPS, "memory.max")
        group = Path(own.lstrip("/"))
        for around in (group, *group.parents):
            yield root / around / name


def _limit_of(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):  # not there, or "max"
        return None


def _disk(what: str, folder: Path) -> Finding:
    there = next((one for one in (folder.absolute(), *folder.absolute().parents) if one.exists()), Path("/"))
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        return Finding(
            what=what,
            found=f"{folder}, which cannot be written",
            state="bad",
            remedy="give another folder, or its rights",
        )
    free = shutil.disk_usage(there).free
    found = f"{folder}{'' if folder.exists() else ' (not there yet)'}, {gibibytes(free)} free"
    if free < _LEAST_DISK:
        return Finding(what=what, found=found, state="bad", remedy=f"free {gibibytes(_LEAST_DISK)}")
    return Finding(what=what, found=found)


def _open_files() -> Iterator[Finding]:
    try:
        import resource
    except ImportError:  # Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if limit == resource.RLIM_INFINITY or limit >= _LEAST_FILES:
        yield Finding(what="open files", found="no limit" if limit == resource.RLIM_INFINITY else f"at most {limit}")
    else:
        yield Finding(what="open files", found=f"at most {limit}", state="missing", remedy=f"ulimit -n {_LEAST_FILES}")
