"""A folder that one process works in at a time, held by a lock that ends with the process."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from semires.stages.data.errors import InputError

try:
    import fcntl
except ImportError:  # Windows: no second process is refused there
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def folder_lock(folder: Path, *, what: str, or_else: str = "choose another --name") -> Iterator[None]:
    """Hold `folder`, which is made if it is missing; InputError where another process holds it.

    what, or_else: what is done there, such as "training", and what to do about another one, for the error's text. The
    lock is the operating system's (flock): it ends with the process, however that ends, and no dead process holds one.
    The file stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a+", encoding="utf-8") as file:
        if fcntl is not None:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = " ".join(file.read().split()) or "another process"
                raise InputError(
                    f"{folder}: expected to be the only {what} there, found another at work ({holder}): wait for it, "
                    f"stop it, or {or_else}"
                ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
