import shutil
import subprocess
from pathlib import Path

import pytest

from semires.stages.processes.source_tree import SourceCommit, commit_of

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
AUTHOR = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *AUTHOR, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "a tree"
    (root / "package").mkdir(parents=True)
    git(root, "init", "-q")
    (root / "package" / "module.py").write_text("x = 1\n")
    git(root, "add", ".")
    git(root, "commit", "-q", "-m", "first")
    return root


@needs_git
def test_commit_of__a_tree_as_it_is_and_changed(tree: Path) -> None:
    commit = git(tree, "rev-parse", "HEAD")
    assert len(commit) == 40
    (tree / "notes.txt").write_text("mine\n")  # git knows nothing of it
    assert commit_of(tree) == SourceCommit(commit=commit, is_changed=False)
    (tree / "package" / "module.py").write_text("x = 2\n")
    assert commit_of(tree) == SourceCommit(commit=commit, is_changed=True)


@needs_git
def test_commit_of__what_is_installed_in_anothers_tree(tree: Path) -> None:
    assert commit_of(tree / "package") is None


@needs_git
def test_commit_of__not_what_a_hooks_variables_name(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    found = commit_of(tree)
    assert found is not None
    assert not found.is_changed


@needs_git
def test_commit_of__no_tree_and_one_without_a_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    assert commit_of(tmp_path) is None
    assert commit_of(tmp_path / "nowhere") is None
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) is None


def test_commit_of__no_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commit_of(Path(__file__).resolve().parents[3]) is None
