"""Completion in bash, zsh and fish: the scripts, and what they are answered."""

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Semires = Callable[..., Any]
SHELLS = ("bash", "zsh", "fish")


def script(semires: Semires, monkeypatch: pytest.MonkeyPatch, shell: str) -> str:
    with monkeypatch.context() as patch:
        patch.setenv("_SEMIRES_COMPLETE", f"source_{shell}")
        finished = semires()
    assert (finished.code, finished.err) == (0, "")
    return str(finished.out)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion__the_script_is_one_of_the_shell(
    semires: Semires, monkeypatch: pytest.MonkeyPatch, shell: str, tmp_path: Path
) -> None:
    written = script(semires, monkeypatch, shell)
    assert f"_SEMIRES_COMPLETE=complete_{shell}" in written
    if shutil.which(shell) is not None:  # bash is nearly everywhere; the others read theirs where they are
        (tmp_path / "script").write_text(written)
        read = subprocess.run([shell, "-n", tmp_path / "script"], capture_output=True, text=True)
        assert (read.returncode, read.stderr) == (0, "")


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("semires ca", {"cache", "cache-sam"}),
        ("semires cache v", {"verify", "view"}),
        ("semires train --mat", {"--matching"}),
        ("semires cache export --format ", {"coco"}),
        ("semires study ", {"run", "labels", "compare"}),
        ("semires train --split refcocog", {"refcocog", "refcocog-clean", "refcocog-google", "refcocog-lmms"}),
        ("semires data check refs", {"refshapes"}),
        ("semires data download sam-vit", {"sam-vit-b", "sam-vit-h", "sam-vit-l"}),
        ("semires study run figure", {"figure6", "figure7"}),
        ("semires cache-sam --sam vit", {"vit_b", "vit_h", "vit_l"}),
    ],
)
@pytest.mark.parametrize("shell", SHELLS)
def test_completion__what_may_follow(
    semires: Semires, monkeypatch: pytest.MonkeyPatch, shell: str, typed: str, expected: set[str]
) -> None:
    monkeypatch.setenv("_SEMIRES_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split(" ")) - 1))
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    finished = semires()
    assert (finished.code, finished.err) == (0, "")
    offered = {line.strip('"').partition("\t")[0] for line in finished.out.splitlines()}
    if shell == "zsh":  # one expression for all, each as "word":"its help"
        assert {word for word in expected if f'"{word}"' in finished.out} == expected
    else:
        assert offered == expected


@pytest.mark.parametrize(("shell", "file"), [("bash", ".bash_completions/semires.sh"), ("zsh", ".zfunc/_semires")])
def test_install_completion__writes_it_where_the_shell_looks(
    semires: Semires, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str, file: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("shellingham.detect_shell", lambda *_: (shell, f"/bin/{shell}"))
    assert semires("--install-completion").code == 0
    assert (tmp_path / file).read_text().strip() == semires("--show-completion").out.strip()
    assert (tmp_path / file).read_text().strip() == script(semires, monkeypatch, shell).strip()
