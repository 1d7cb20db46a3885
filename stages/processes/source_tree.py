"""The git commit of the source tree that runs, where it is one."""

import os
import subprocess
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_PATIENCE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class SourceCommit:
    """commit: hexadecimal. is_changed: whether files that git knows differ from it."""

    commit: str
    is_changed: bool


@cache
def own_commit() -> SourceCommit | None:
    """The commit of the tree that this module is read from, asked for once a process; None where it was installed as a
    package, where there is no git, and where git refuses (the tree is another user's, for instance)."""
    return commit_of(Path(__file__).resolve().parents[2])


def commit_of(root: Path) -> SourceCommit | None:
    """The commit of the working tree `root`; None where it is none, also where a tree around it is one: what is
    installed below somebody's project is not of that project's commit."""
    top, commit = _git(root, "rev-parse", "--show-toplevel"), _git(root, "rev-parse", "--verify", "HEAD")
    status = _git(root, "status", "--porcelain", "--untracked-files=no")
    if top is None or commit is None or status is None or Path(top) != root.resolve():
        return None
    return SourceCommit(commit=commit, is_changed=bool(status))


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None where it fails or is not there."""
    # Of a hook of another repository, for instance, they would name that one.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    try:
        found = subprocess.run(command, env=environment, capture_output=True, timeout=_PATIENCE_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return os.fsdecode(found.stdout).strip()
