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
from tempfile import TemporaryFile
from threading import Event, Thread
from typing import Any

from semires.stages.processes.stopping import StopRequested

NAME = "claim.json"
SECONDS_BETWEEN_BEATS = 10.0
SECONDS_TO_DEATH = 180.0
"""Without a beat: long enough for a file system that hangs, short enough for somebody who waits."""


class ClaimLost(Exception):
    """Another process took the claim over, and does the work now."""


@contextmanager
def claimed(folder: Path, *, beat: float = SECONDS_BETWEEN_BEATS, death: float = SECONDS_TO_DEATH) -> Iterator[bool]:
    """Claim the run in `folder`, which is made if it is missing, for as long as the block takes; gives whether it was
    to be had. A dead claim is taken over.

    A holder that was taken for dead, after a long sleep for instance, gets SIGTERM: two must not write one run. Where
    it turns that into StopRequested (`StopSignals`), the block ends with ClaimLost. OSError where no claim can be
    written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, token = folder / NAME, secrets.token_hex(8)
    if not _take(path, token, death):
        yield False
        return
    ended, lost = Event(), Event()
    beating = Thread(target=_beat, args=(path, token, beat, ended, lost), daemon=True)
    beating.start()
    try:
        yield True
    except StopRequested as stop:
        if lost.is_set():
            raise ClaimLost(f"{folder}: another process took it over") from stop
        raise
    finally:
        ended.set()
        beating.join()
        if (_read(path) or {}).get("token") == token:
            with suppress(OSError):  # it is dead with its process
                path.unlink()


def holder(folder: Path, *, death: float = SECONDS_TO_DEATH) -> str | None:
    """Who holds the run in `folder`, in words; None where nobody alive does."""
    found = _read(folder / NAME)
    if found is None or _is_dead(folder / NAME, found, death):
        return None
    return f"process {found['pid']} on {found['host']}" if {"pid", "host"} <= found.keys() else "another process"


def _take(path: Path, token: str, death: float) -> bool:
    for _ in range(2):
        if _put(path, token):
            return True
        found = _read(path)
        if found is not None:
            if not _is_dead(path, found, death):
                return False
            _bury(path, found, token)
    return False


def _put(path: Path, token: str) -> bool:
    """Write a claim of this process; returns False where there is one."""
    try:
        file = path.open("x", encoding="utf-8")  # one alone can make it, on network file systems too
    except FileExistsError:
        return False
    try:
        with file:
            file.write(json.dumps({"token": token, **_here()}) + "\n")
    except OSError:  # a full disk
        path.unlink(missing_ok=True)
        raise
    return True


def _bury(path: Path, dead: dict[str, Any], token: str) -> None:
    """Remove a dead claim; one that another process has put in its place meanwhile is put back."""
    grave = path.with_name(f".{NAME}.{token}.dead")
    try:
        path.rename(grave)
    except FileNotFoundError:
        return
    if (_read(grave) or {}).get("token") != dead.get("token"):
        with suppress(OSError):  # a third one has it: whose claim this was sees it at its next beat
            os.link(grave, path)
    grave.unlink(missing_ok=True)


def _beat(path: Path, token: str, seconds: float, ended: Event, lost: Event) -> None:
    while not ended.wait(seconds):
        found = _read(path)
        with suppress(OSError):  # a file system that is away for a moment
            if found is None:  # moved by one that died before it put it back
                _put(path, token)
            elif found.get("token") == token:
                os.utime(path)
            elif "token" in found:
                lost.set()
                os.kill(os.getpid(), signal.SIGTERM)
                return


def _is_dead(path: Path, claim: dict[str, Any], death: float) -> bool:
    machine = _machine()
    if machine is not None and claim.get("machine") == machine:
        return claim.get("started") != _started(claim.get("pid"))
    try:
        # Compared by the file system's clock alone: those of two machines differ.
        with TemporaryFile(dir=path.parent) as clock:
            return os.fstat(clock.fileno()).st_mtime - path.stat().st_mtime > death
    except OSError:
        return False


def _here() -> dict[str, Any]:
    """What tells this process from others: `started` from those that had its number before."""
    pid = os.getpid()
    return {"pid": pid, "started": _started(pid), "host": socket.gethostname(), "machine": _machine()}


def _machine() -> str | None:
    """What tells this machine, since it was started, from others with the same host name and process ids; None where
    it cannot be told."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return None


def _started(pid: Any) -> str | None:
    """When a process of this machine was started, in the kernel's ticks; None for one that is gone, or nothing but a
    zombie whose parent has not looked."""
    try:
        fields = Path(f"/proc/{int(pid)}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except (OSError, TypeError, ValueError):
        return None
    return None if fields[0] == "Z" else fields[19]


def _read(path: Path) -> dict[str, Any] | None:
    """A claim; None where there is none, {} for one that says nothing: it is being written, or cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
