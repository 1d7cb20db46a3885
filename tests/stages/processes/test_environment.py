import json
import os
import platform
import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

from semires.stages.processes import environment as module
from semires.stages.processes.environment import environment_of, package_versions, usable_cores
from semires.stages.processes.source_tree import SourceCommit

CPU = torch.device("cpu")


def test_environment_of__a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_commit", lambda: SourceCommit(commit="ab" * 20, is_changed=True))
    found = environment_of(CPU, 3)
    assert json.loads(json.dumps(found)) == found
    assert abs(datetime.fromisoformat(found["started"]) - datetime.now(UTC)).total_seconds() < 60
    assert found["semires"] == {
        "version": found["semires"]["version"],
        "commit": "ab" * 20,
        "is_changed": True,
    }
    assert found["packages"].keys() == {"torch", "torchvision", "transformers", "zarr", "numpy"}
    assert found["packages"]["torch"] == package_versions(["torch"])["torch"] is not None
    assert (found["python"], found["device"], found["cuda"]) == (platform.python_version(), "cpu", None)
    assert (found["processes"], found["threads"]) == (3, torch.get_num_threads())
    assert found["cpu"]["name"]
    assert found["cpu"]["cores"] == usable_cores() >= 1


def test_environment_of__says_nothing_private() -> None:
    text = json.dumps(environment_of(CPU, 1))
    assert socket.gethostname() not in text
    assert os.getcwd() not in text
    assert str(Path.home()) not in text


def test_environment_of__no_source_tree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "own_commit", lambda: None)
    semires = environment_of(CPU, 1)["semires"]
    assert (semires["commit"], semires["is_changed"]) == (None, None)


def test_environment_of__a_cuda_device(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "some GPU")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.version, "cuda", "12.9")
    monkeypatch.setattr(module, "_driver_version", lambda path: "550.1")
    found = environment_of(torch.device("cuda", 1), 1)
    assert found["cuda"] == {"name": "some GPU", "count": 4, "driver": "550.1", "runtime": "12.9"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.10  Release Build", "570.86.10"),
        ("something else", None),
    ],
)
def test_driver_version__of_the_kernels_module(tmp_path: Path, line: str, expected: str | None) -> None:
    (tmp_path / "version").write_text(f"{line}\nGCC version:  gcc version 11.4.0\n")
    assert module._driver_version(tmp_path / "version") == expected
    assert module._driver_version(tmp_path / "none") is None


def test_package_versions__one_that_is_not_installed() -> None:
    assert package_versions(["no-such-package-here"]) == {"no-such-package-here": None}
