"""State files: whole or not used, named where they are not, two of them, and never code."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.engine import states as states_module
from semires.stages.train.engine.states import StateFiles


@pytest.fixture
def states(tmp_path: Path) -> StateFiles:
    return StateFiles(tmp_path, "this run")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def silent(text: str) -> None:
    raise AssertionError(f"said {text}")


def test_load__nothing_written(states: StateFiles) -> None:
    assert states.load(silent) is None
    assert states.latest_step is None


def test_save__the_latest_two_are_kept(states: StateFiles) -> None:
    for step in (5, 90, 100):
        states.save(step, {"step": step, "model": {"weight": torch.full((2,), float(step))}})
    assert names(states.folder) == [f"state-{step:08d}.pt{ending}" for step in (90, 100) for ending in ("", ".sha256")]
    state = states.load(silent)
    assert state is not None
    assert (state["step"], state["model"]["weight"].tolist()) == (100, [100.0, 100.0])
    assert states.latest_step == 100
    states.remove()
    assert names(states.folder) == []


def test_save__sha256sum_agrees(states: StateFiles) -> None:
    states.save(1, {"step": 1})
    check = subprocess.run(
        ["sha256sum", "-c", "state-00000001.pt.sha256"], cwd=states.folder, capture_output=True, text=True
    )
    assert check.stdout == "state-00000001.pt: OK\n"


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


def turn_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def of_another_run(path: Path) -> None:
    StateFiles(path.parent, "another run").save(2, {"step": 2})


def lose_checksum(path: Path) -> None:
    path.with_name(f"{path.name}.sha256").unlink()


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        (cut_off, "is damaged (its sha256 is another)"),
        (turn_a_bit, "is damaged (its sha256 is another)"),
        (of_another_run, "is the state of another run"),
        (lose_checksum, "has no readable state-00000002.pt.sha256"),
    ],
)
def test_load__a_bad_state_is_named_and_the_one_before_used(states: StateFiles, damage: Any, found: str) -> None:
    states.save(1, {"step": 1})
    states.save(2, {"step": 2})
    damage(states.folder / "state-00000002.pt")
    said: list[str] = []
    state = states.load(said.append)
    assert state is not None
    assert state["step"] == 1
    assert said == [f"{states.folder}: state-00000002.pt {found}: going on from state-00000001.pt, step 1"]


def test_load__none_that_can_be_used_is_an_error(states: StateFiles) -> None:
    states.save(1, {"step": 1})
    cut_off(states.folder / "state-00000001.pt")
    with pytest.raises(InputError, match=r"found none that can be used \(state-00000001.pt is damaged.*--restart"):
        states.load(silent)


@pytest.mark.parametrize("content", [b"", b"no state", b"PK\x03\x04 cut off"])
def test_load__the_one_file_of_old_unreadable(states: StateFiles, content: bytes) -> None:
    (states.folder / "state.pt").write_bytes(content)
    with pytest.raises(InputError, match=r"state\.pt cannot be read .*--restart"):
        states.load(silent)


def test_load__the_one_file_of_old_is_read_until_there_are_newer(states: StateFiles) -> None:
    torch.save({"step": 3}, states.folder / "state.pt")
    state = states.load(silent)
    assert state is not None
    assert state["step"] == 3
    states.save(4, {"step": 4})
    assert names(states.folder) == ["state-00000004.pt", "state-00000004.pt.sha256", "state.pt"]
    states.save(5, {"step": 5})
    assert "state.pt" not in names(states.folder)


def test_load__pickled_code_is_not_run(states: StateFiles, tmp_path: Path) -> None:
    class Code:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "was-run",)

    states.save(1, {"step": Code()})
    with pytest.raises(InputError, match="cannot be read"):
        states.load(silent)
    assert not (tmp_path / "was-run").exists()


def test_save__a_full_disk_leaves_the_states_before(states: StateFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    states.save(1, {"step": 1})

    class FullDisk(states_module._HashingFile):
        def write(self, content: Any) -> int:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(states_module, "_HashingFile", FullDisk)
    with pytest.raises(OSError, match="No space left on device"):
        states.save(2, {"step": 2, "model": torch.zeros(1000)})
    monkeypatch.undo()
    assert names(states.folder) == ["state-00000001.pt", "state-00000001.pt.sha256"]
    state = states.load(silent)
    assert state is not None
    assert state["step"] == 1


def test_save__killed_while_writing(tmp_path: Path) -> None:
    script = """
import os, sys
from pathlib import Path
import torch
from semires.stages.train.engine import states
files = states.StateFiles(Path(sys.argv[1]), "this run")
files.save(1, {"step": 1})
class Killed(states._HashingFile):
    def write(self, content):
        os.kill(os.getpid(), 9)
states._HashingFile = Killed
files.save(2, {"step": 2})
"""
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True)
    assert done.returncode == -9
    assert "state-00000002.pt.tmp" in names(tmp_path)
    state = StateFiles(tmp_path, "this run").load(silent)
    assert state is not None
    assert state["step"] == 1
    assert names(tmp_path) == ["state-00000001.pt", "state-00000001.pt.sha256"]
