import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.running.launchers import LaunchOptions, check_launch, make_launcher, workers_here
from semires.pipeline.running.launching import LocalLauncher
from semires.pipeline.running.slurm import SubmititLauncher
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"launcher": "cloud"}, "--launcher: expected one of local, slurm, submitit-local, found 'cloud'"),
        ({"num_workers": 0}, "--workers: expected 1 or more, found 0"),
        ({"gpus_per_run": 0}, "--gpus-per-run: expected 1 or more, found 0"),
        ({"slurm": {"partition": "gpu"}}, "--slurm: expected --launcher slurm, found local"),
    ],
)
def test_launch_options__what_means_nothing(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        LaunchOptions(**options)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, "cpu"), ({"launcher": "submitit-local"}, "cpu"), ({"launcher": "slurm"}, "cuda")],
)
def test_device_of_runs__of_a_cluster_is_not_the_login_nodes(options: dict[str, Any], expected: str) -> None:
    assert LaunchOptions(**options).device_of_runs(CPU) == torch.device(expected)
    assert LaunchOptions(**options, device="cpu").device_of_runs(CPU) == CPU


@pytest.mark.parametrize(
    ("num_cores", "num_jobs", "options", "expected"),
    [
        (2, 3, {}, (3, 1)),  # a worker more than threads
        (2, 1, {}, (1, 2)),
        (1, 5, {}, (1, 1)),
        (16, 4, {}, (4, 4)),
        (16, 100, {}, (17, 1)),
        (2, 3, {"num_workers": 2}, (2, 1)),
        (8, 3, {"num_workers": 1}, (1, 8)),
        (8, 9, {"gpus_per_run": 2}, (4, 1)),
        (2, 9, {"gpus_per_run": 4}, (1, 1)),
    ],
)
def test_workers_here__on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, num_cores: int, num_jobs: int, options: dict[str, Any], expected: tuple[int, int]
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_cores)
    devices, num_threads = workers_here(LaunchOptions(**options), CPU, num_jobs)
    assert devices == [CPU] * len(devices)
    assert (len(devices), num_threads) == expected


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", {}, [0, 1, 2, 3]),
        ("cuda", {"num_workers": 2}, [0, 1]),
        ("cuda", {"gpus_per_run": 2}, [0, 2]),
        ("cuda", {"gpus_per_run": 3}, [0]),
        ("cuda:2", {}, [2]),
    ],
)
def test_workers_here__one_a_gpu(
    monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, Any], expected: list[int]
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    devices, _ = workers_here(LaunchOptions(**options), torch.device(device), 9)
    assert [(found.type, found.index) for found in devices] == [("cuda", index) for index in expected]
    assert len(workers_here(LaunchOptions(**options), torch.device(device), 1)[0]) == options.get("num_workers", 1)


@pytest.mark.parametrize(
    ("device", "options", "expected"),
    [
        ("cuda", {"num_workers": 5}, "--workers: expected at most 4 with 1 of 4 GPUs for each run, found 5"),
        ("cuda", {"num_workers": 3, "gpus_per_run": 2}, "--workers: expected at most 2 with 2 of 4 GPUs"),
        ("cuda", {"gpus_per_run": 8}, "--gpus-per-run: expected at most 4, found 8"),
        ("cuda:1", {"num_workers": 2}, "--workers: expected at most 1"),
    ],
)
def test_check_launch__more_than_there_are_gpus(
    monkeypatch: pytest.MonkeyPatch, device: str, options: dict[str, Any], expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    with pytest.raises(InputError, match=expected):
        check_launch(LaunchOptions(**options), torch.device(device))
    check_launch(LaunchOptions(**options, launcher="slurm"), torch.device(device))  # whose machines have their own


@pytest.mark.parametrize("launcher", ["slurm", "submitit-local"])
def test_check_launch__without_submitit(monkeypatch: pytest.MonkeyPatch, launcher: Any) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)
    with pytest.raises(InputError, match=rf"--launcher {launcher}: expected the package submitit.*semires\[slurm\]"):
        check_launch(LaunchOptions(launcher=launcher), CPU)
    check_launch(LaunchOptions(), CPU)


def test_make_launcher__as_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    paths = Paths(data=tmp_path)
    local = make_launcher(LaunchOptions(), paths, CPU, 9, tmp_path / "logs", ignore)
    tried = make_launcher(LaunchOptions(launcher="submitit-local"), paths, CPU, 9, tmp_path / "logs", ignore)
    assert isinstance(local, LocalLauncher)
    assert isinstance(tried, SubmititLauncher)
    assert local.num_workers == tried.num_workers == 3


def test_make_launcher__no_cluster_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(InputError, match=r"--launcher slurm: .*srun.*; change --slurm or --launcher"):
        make_launcher(LaunchOptions(launcher="slurm"), Paths(data=tmp_path), CPU, 9, tmp_path / "logs", ignore)
