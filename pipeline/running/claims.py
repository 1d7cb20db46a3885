"""Who works on a run, where several commands, perhaps on several machines, share a folder of runs.

A claim is a file in the run's folder that its holder touches every few seconds. It is dead once its process is gone,
where that can be seen, or once nobody has touched it for minutes; then the next one takes it over. A run's own lock
(stages/processes/lock.py) ends with its process, but does not reach other machines on every file system.
"""

import json
import os
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import Any

NAME = "claim.json"
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_TO_DEATH = 180.0
"""Without a beat: long enough for a file system that hangs, short enough for somebody who waits."""


@contextmanager
def claimed(folder: Path, *, beat: float = SECONDS_BETWEEN_BEATS, death: float = SECONDS_TO_DEATH) -> Iterator[bool]:
    """Claim the run in `folder`, which is made if it is missing, for as long as the block takes; gives whether it was
    to be had. A dead claim is taken over."""
    folder.mkdir(parents=True, exist_ok=True)
    token = secrets.token_hex(8)
    if not _take(folder, token, death):
        yield False
        return
    ended = Event()
    beating = Thread(target=_beat, args=(folder / NAME, token, beat, ended), daemon=True)
    beating.start()
    try:
        yield True
    finally:
        ended.set()
        beating.join()
        if _read(folder / NAME).get("token") == token:
            (folder / NAME).unlink(missing_ok=True)


def holder(folder: Path, *, death: float = SECONDS_TO_DEATH) -> str | None:
    """Who holds the run in `folder`, in words; None where nobody alive does."""
    found = _read(folder / NAME)
    if not found or _is_dead(folder, found, death):
        return None
    return f"process {found.get('pid')} on {found.get('host')}"


def _take(folder: Path, token: str, death: float) -> bool:
    path, mine = folder / NAME, folder / f".{NAME}.{token}"
    mine.write_text(json.dumps({"token": token, **_here()}) + "\n", encoding="utf-8")
    try:
        for _ in range(2):
            try:
                os.link(mine, path)  # whole or not at all, on network file systems too
                return True
            except FileExistsError:
                found = _read(path)
                if found and not _is_dead(folder, found, death):
                    return False
                _bury(path, found, token)
        return False
    finally:
        mine.unlink(missing_ok=True)


def _bury(path: Path, dead: dict[str, Any], token: str) -> None:
    """Move a dead claim away; one that another process has put in its place meanwhile is put back."""
    grave = path.with_name(f".{NAME}.{token}.dead")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    if _read(grave).get("token") != dead.get("token"):
        with suppress(FileExistsError):  # a third one has it: whose claim this was sees it at its next beat
            os.link(grave, path)
    grave.unlink(missing_ok=True)


def _beat(path: Path, token: str, seconds: float, ended: Event) -> None:
    while not ended.wait(seconds):
        found = _read(path).get("token")
        if found not in (token, None):
            # It was taken for dead, after a long sleep for instance: two must not write one run.
            os.kill(os.getpid(), signal.SIGTERM)
            return
        with suppress(OSError):  # a file system that is away for a moment
            os.utime(path)


def _is_dead(folder: Path, claim: dict[str, Any], death: float) -> bool:
    here = _here()
    if here["machine"] is not None and claim.get("machine") == here["machine"]:
        return claim.get("started") != _started(claim.get("pid"))
    clock = folder / f".{NAME}.{secrets.token_hex(8)}.clock"
    try:
        # Compared by the file system's clock alone: those of two machines differ.
        clock.touch()
        return clock.stat().st_mtime - (folder / NAME).stat().st_mtime > death
    except OSError:
        return False
    finally:
        clock.unlink(missing_ok=True)


def _here() -> dict[str, Any]:
    """This process: `machine` tells it from others with the same host name and process ids, None where unknown;
    `started` from others that had its number before."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        machine: str | None = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        machine = None
    return {"pid": os.getpid(), "started": _started(os.getpid()), "host": socket.gethostname(), "machine": machine}


def _started(pid: Any) -> str | None:
    """When a process of this machine was started, in the kernel's ticks; None for one that is gone, or nothing but a
    zombie whose parent has not looked."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, TypeError, ValueError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _read(path: Path) -> dict[str, Any]:
    """A claim, {} where there is none, or one that a full disk cut off."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
