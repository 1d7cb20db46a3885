import shutil
from pathlib import Path

import pytest

from semires.pipeline.doctor import machine
from semires.pipeline.paths import Paths


def limited(monkeypatch: pytest.MonkeyPatch, folder: Path, own: str, limits: dict[str, str]) -> None:
    """Control groups in `folder`; `own` is what /proc/self/cgroup says."""
    for name, limit in limits.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(f"{limit}\n")
    (folder / "own").write_text(own)
    monkeypatch.setattr(machine, "_CGROUPS", folder)
    monkeypatch.setattr(machine, "_OWN_CGROUPS", folder / "own")


@pytest.mark.parametrize(
    ("own", "limits"),
    [
        ("0::/slurm/job_7/step_0\n", {"slurm/job_7/memory.max": "1000000000", "slurm/job_7/step_0/memory.max": "max"}),
        ("0::/a\n", {"memory.max": "3000000000", "a/memory.max": "1000000000"}),
        ("5:cpu:/b\n4:memory,x:/a\n", {"memory/a/memory.limit_in_bytes": "1000000000", "memory.max": "1"}),
    ],
)
def test_machine__the_least_of_nested_limits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, limits: dict[str, str]
) -> None:
    limited(monkeypatch, tmp_path, own, limits)
    found = {one.what: one for one in machine.look_at_machine(Paths(data=tmp_path, runs=tmp_path))}
    assert found["memory"].found.startswith("954 MiB, this container's or job's part of ")


@pytest.mark.parametrize("own", ["0::/\n", "0::/none\n", "", "0::/../..\n"])
def test_machine__no_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str) -> None:
    limited(monkeypatch, tmp_path, own, {"memory.max": "max"})
    found = {one.what: one for one in machine.look_at_machine(Paths(data=tmp_path, runs=tmp_path))}
    assert "part of" not in found["memory"].found


def test_machine__little_of_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limited(monkeypatch, tmp_path, "0::/\n", {"memory.max": f"{2**30}"})
    monkeypatch.setattr(machine, "_SHARED_MEMORY", tmp_path)
    usage = type(shutil.disk_usage(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**26, 0, 2**26))
    found = {one.what: one for one in machine.look_at_machine(Paths(data=tmp_path / "data", runs=tmp_path))}
    assert found["memory"].state == "missing"
    assert found["memory"].found.startswith("1.0 GiB, this container's or job's part of ")
    assert (found["runs"].state, found["runs"].remedy) == ("bad", "free 1.0 GiB")
    assert found[str(tmp_path)].remedy == "docker run --shm-size 8g"
