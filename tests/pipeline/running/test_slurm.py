import dataclasses
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.recipes import train_recipe
from semires.pipeline.running.jobs import TrainJob
from semires.pipeline.running.launchers import LaunchOptions
from semires.pipeline.running.launching import Ended
from semires.pipeline.running.slurm import SubmititLauncher
from semires.pipeline.study.command import run_study, runs_of
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., SubmititLauncher]:
    """A launcher of two workers."""

    def make_launcher(cluster: str, parameters: dict[str, Any] | None = None, device: str = "cpu") -> SubmititLauncher:
        return SubmititLauncher(
            Paths(data=tmp_path / "data"),
            cluster=cluster,
            device=torch.device(device),
            num_threads=1,
            folder=tmp_path / "logs",
            num_workers=2,
            gpus_per_run=4,
            parameters=parameters or {},
        )

    return make_launcher


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    return TrainJob(label="a run", config=train_recipe("refcoco"), folder=tmp_path / "run", burn_in=None)


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Commands of Slurm that note what they were asked; `sbatch` refuses where `no` is there."""
    folder = tmp_path / "slurm"
    folder.mkdir()
    refusing = f'[ ! -e {folder}/no ] || {{ echo "sbatch: no [such] queue" >&2; exit 1; }}'
    for name, script in {
        "srun": "",
        "sbatch": f'cp "$1" {folder}/submitted\n{refusing}\necho Submitted batch job 12',
        "scancel": f'echo "$@" >> {folder}/cancelled',
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755 | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def all_ended(launcher: SubmititLauncher, num_jobs: int) -> list[Ended]:
    found: list[Ended] = []
    while len(found) < num_jobs:
        found += launcher.ended(60.0)
    return found


def test_run_study__by_submitits_local_executor(tiny_study: Any, capsys: pytest.CaptureFixture[str]) -> None:
    study, paths = tiny_study
    launch = LaunchOptions(launcher="submitit-local", num_workers=2, slurm={"timeout_min": 5})
    told: list[Any] = []
    result, is_whole = run_study(study, runs_of(study, CPU), paths, CPU, lambda *what: told.append(what), launch=launch)
    assert is_whole
    assert [run.row for run in result.runs] == ["Supervised", "Baseline", "SemiRES"]
    assert ("runs", 3, 3, "") in told
    out = capsys.readouterr().out
    assert out.count(": submitted as ") == 4
    assert len(list((paths.runs / "studies" / "logs").glob("*_log.out"))) == 4
    assert (paths.reports / "tiny.json").is_file()


def test_submitit_launcher__jobs_that_fail(
    make: Callable[..., SubmititLauncher], job: TrainJob, tmp_path: Path
) -> None:
    """What a user can mend comes back as it is, of all else the logs are named."""
    launcher = make("local")
    broken = dataclasses.replace(job, config=None)  # type: ignore[arg-type]
    launcher.start(job)
    launcher.start(broken)
    failures = {ended.job: ended.failure for ended in all_ended(launcher, 2)}
    assert "refcoco" in str(failures[job])
    assert str(tmp_path / "data") in str(failures[job])
    said = str(failures[broken])
    assert said.endswith("AttributeError: 'NoneType' object has no attribute 'split'")
    log = said.partition("its log is ")[2].partition(": ")[0]
    assert "Traceback" in Path(log).read_text()


def test_submitit_launcher__parameters_reach_slurm(
    make: Callable[..., SubmititLauncher], job: TrainJob, cluster: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launcher = make("slurm", {"partition": "gpu", "timeout_min": 30, "slurm_account": "us"}, device="cuda")
    launcher.start(job)
    assert capsys.readouterr().out == "a run: submitted as 12\n"
    lines = (cluster / "submitted").read_text().splitlines()
    for expected in ("partition=gpu", "time=30", "account=us", "gpus-per-node=4", "job-name=semires"):
        assert f"#SBATCH --{expected}" in lines
    launcher.stop()
    assert (cluster / "cancelled").read_text() == "12\n"


def test_submitit_launcher__a_job_that_slurm_does_not_take(
    make: Callable[..., SubmititLauncher], job: TrainJob, cluster: Path
) -> None:
    (cluster / "no").touch()
    launcher = make("slurm")
    launcher.start(job)
    (ended,) = launcher.ended(60.0)
    assert ended == Ended(job=job, failure="the cluster did not take it: sbatch: no [such] queue")


@pytest.mark.parametrize("parameters", [{"timeout_min": "long"}, {"slurm_no_such_thing": 1}])
def test_submitit_launcher__parameters_that_do_not_exist(
    make: Callable[..., SubmititLauncher], cluster: Path, parameters: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match=f"--launcher slurm: .*{next(iter(parameters)).removeprefix('slurm_')}"):
        make("slurm", parameters)
