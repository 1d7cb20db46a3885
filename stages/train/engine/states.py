"""What an interrupted run goes on from: state files with checksums, the latest two kept.

    state-00000120.pt          torch.save, of tensors and plain values only
    state-00000120.pt.sha256   its sha256, as `sha256sum -c` reads it

Runs from before there were checksums have one file, `state.pt`; it is read where there is no other.
"""

import hashlib
import os
import pickle
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any, cast

import torch

from semires.stages.data.errors import InputError

KEPT = 2
_OLD = "state.pt"
_NAME = re.compile(r"state-(\d{8})\.pt")


class DamagedState(Exception):
    """A state file that cannot be gone on from, and why."""


class StateFiles:
    """The state files in a run's folder.

    identity: what a state must have under "identity" to be of this run; states of another are not read.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder = folder
        self.identity = identity

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after `step` steps, then drop all but the latest two.

        A kill leaves the files before it as they were. OSError where it cannot be written, a full disk for instance;
        nothing of it is left then.
        """
        target = self.folder / f"state-{step:08d}.pt"
        temporary = target.with_name(f"{target.name}.tmp")
        try:
            with temporary.open("wb") as file:
                hashing = _HashingFile(file)
                torch.save({**state, "identity": self.identity}, cast(IO[bytes], hashing))
                file.flush()
                os.fsync(file.fileno())
            # The checksum first: a state without one is not read.
            _checksum_path(target).write_text(f"{hashing.sha256.hexdigest()}  {target.name}\n", encoding="utf-8")
            temporary.replace(target)
        except (OSError, RuntimeError) as error:
            for path in (temporary, *(() if target.exists() else (_checksum_path(target),))):
                path.unlink(missing_ok=True)
            # torch's writer hides the file's own error behind one of its own.
            raise (error if isinstance(error, OSError) else OSError(_reason(error))) from error
        for path in self._paths()[KEPT:]:
            _remove(path)

    def load(self, say: Callable[[str], None]) -> dict[str, Any] | None:
        """The latest state that is whole and of this run; None where no state was ever written.

        say: told, in a line each, of later ones that are not. InputError where there are some and none can be used.
        """
        for unfinished in self.folder.glob("state-*.pt.tmp"):  # of a kill in the middle of writing
            unfinished.unlink(missing_ok=True)
        problems = []
        for path in self._paths():
            try:
                state = self._read(path)
            except DamagedState as problem:
                problems.append(f"{path.name} {problem}")
                continue
            for text in problems:
                say(f"{self.folder}: {text}: going on from {path.name}, step {state['step']}")
            return state
        if problems:
            raise InputError(
                f"{self.folder}: expected a state to go on from, found none that can be used ({'; '.join(problems)}): "
                "put a whole one there, or begin anew with --restart"
            )
        return None

    def remove(self) -> None:
        """Remove all states: the run is finished."""
        for path in self._paths():
            _remove(path)

    @property
    def latest_step(self) -> int | None:
        """The step of the latest state file, None where there is none."""
        for path in self._paths():
            if found := _NAME.fullmatch(path.name):
                return int(found[1])
        return None

    def _paths(self) -> list[Path]:
        """All state files, the latest first."""
        numbered = sorted((path for path in self.folder.glob("state-*.pt") if _NAME.fullmatch(path.name)), reverse=True)
        old = self.folder / _OLD
        return [*numbered, *([old] if old.is_file() else [])]

    def _read(self, path: Path) -> dict[str, Any]:
        if path.name != _OLD:
            self._check(path)
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except (RuntimeError, EOFError, ValueError, KeyError, OSError, pickle.UnpicklingError) as error:
            raise DamagedState(f"cannot be read ({_reason(error)})") from error
        if not isinstance(state, dict) or "step" not in state:
            raise DamagedState("is no state of a run")
        if path.name != _OLD and state.get("identity") != self.identity:
            raise DamagedState("is the state of another run")
        return state

    @staticmethod
    def _check(path: Path) -> None:
        try:
            expected = _checksum_path(path).read_text(encoding="utf-8").split()[0]
        except (OSError, IndexError, UnicodeDecodeError) as error:
            raise DamagedState(f"has no readable {path.name}.sha256") from error
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected:
                raise DamagedState("is damaged (its sha256 is another)")


class _HashingFile:
    """A file to write to that knows the sha256 of what was written."""

    def __init__(self, file: IO[bytes]) -> None:
        self.sha256 = hashlib.sha256()
        self._file = file

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return self._file.write(content)

    def flush(self) -> None:
        self._file.flush()


def _checksum_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.sha256")


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    _checksum_path(path).unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(str(error).split())[:160] or type(error).__name__
