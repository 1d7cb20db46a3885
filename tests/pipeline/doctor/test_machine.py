import shutil
from pathlib import Path

import pytest

from semires.pipeline.doctor import machine
from semires.pipeline.paths import Paths


def test_machine__little_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text(f"{2**30}\n")
    monkeypatch.setattr(machine, "_CGROUPS", (tmp_path / "memory.max", tmp_path / "none"))
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**26, 0, 2**26))
    found = {one.what: one for one in machine.look_at_machine(Paths(data=tmp_path / "data", runs=tmp_path))}
    assert found["memory"].state == "missing"
    assert found["memory"].found.startswith("1.0 GiB, this container's part of ")
    assert (found["runs"].state, found["runs"].remedy) == ("bad", "free 1.0 GiB")
    assert found[str(tmp_path)].remedy == "docker run --shm-size 8g"
