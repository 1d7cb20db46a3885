import dataclasses
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.running import claims, launching, under_torchrun
from semires.pipeline.running.jobs import TrainJob, do_job
from semires.pipeline.running.under_torchrun import train_under_torchrun
from semires.stages.data.errors import InputError
from semires.stages.processes.stopping import StopRequested, StopSignals
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
SIGNALLED = 'trap "echo signal >> $0.heard; exit 1" TERM\n'
WORKER = "from semires.pipeline.running.jobs import do_job; do_job(job, paths, device, lambda *what: tell.send(what))"


@pytest.fixture
def config() -> TrainConfig:
    config = TrainConfig(split="refcoco", model="nano", method="supervised", labeled=0.5, burn_in_epochs=1)
    return dataclasses.replace(config, batch_burn_in=4, num_evaluations=1, num_workers=0, precision="fp32")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def train(tmp_path: Path, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """`train(script, on_progress)`: a shell script in torchrun's place."""

    def run(script: str, on_progress: Any = ignore) -> None:
        stand_in = tmp_path / "torchrun"
        stand_in.write_text(f"#!/bin/bash\n{script}\n")
        stand_in.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(stand_in))
        train_under_torchrun(config, Paths(data=tmp_path / "data"), tmp_path / "run", CPU, on_progress, num_processes=2)

    return run


def test_train_under_torchrun__what_the_processes_tell(
    train: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Any] = []
    lines = [
        ["progress", "semires", 1, 2, "loss 0.3"],
        ["line", "[bold]going on[/bold]"],
        ["progress", "semires", 2, 2],
    ]
    others = ["a logger's word", "[1, 2]", '{"a": 1}', "3"]
    script = "\n".join(f"echo '{json.dumps(line)}'" for line in lines) + "".join(f'\necho "{line}"' for line in others)
    train(f'{script}\necho "$@, threads: $OMP_NUM_THREADS" >&2', lambda *what: told.append(what))
    assert told == [("semires", 1, 2, "loss 0.3"), ("semires", 2, 2)]
    assert capsys.readouterr().out == "[bold]going on[/bold]\n"
    logged = (tmp_path / "run" / "torchrun.log").read_text().splitlines()
    command = "-m torch.distributed.run --standalone --nproc-per-node 2 -m semires.pipeline.running.under_torchrun"
    asked = f"{command} {tmp_path / 'run' / 'torchrun.json'}, threads: {torch.get_num_threads()}"
    assert sorted(logged) == sorted([*(line.replace('"', "") for line in others), asked])
    order = json.loads((tmp_path / "run" / "torchrun.json").read_text())
    assert order["paths"] == {"data": str(tmp_path / "data"), "runs": "runs", "reports": "reports"}


def test_train_under_torchrun__what_the_processes_refuse(train: Callable[..., Any], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^expected \[more\]$"):
        train('echo "Traceback: torchrun\'s own" >&2; echo "error: expected [more]" >&2; exit 2')
    with pytest.raises(InputError, match=f"2 processes failed, what they said is in {tmp_path / 'run/torchrun.log'}"):
        train("exit 1")  # what the call before said is not its


def test_train_under_torchrun__a_signal_ends_the_processes(train: Callable[..., Any], tmp_path: Path) -> None:
    def stop(*what: Any) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with StopSignals(), pytest.raises(StopRequested):
        train(f"""{SIGNALLED}echo '["progress", "a", 1, 2]'\nwhile true; do sleep 0.05; done""", stop)
    assert (tmp_path / "torchrun.heard").read_text() == "signal\n"


def test_train_under_torchrun__no_signal_of_the_terminal_reaches_the_processes(
    train: Callable[..., Any], tmp_path: Path
) -> None:
    """torchrun hears SIGINT and SIGHUP whether they are ignored or not, and kills its ranks soon after."""
    train('ps -o pgid= -p $$ > "$0.group"')
    assert int((tmp_path / "torchrun.group").read_text()) != os.getpgrp()


@pytest.mark.parametrize(("first", "visible", "expected"), [(0, None, "0,1"), (2, None, "2,3"), (1, "7,5,6", "5,6")])
def test_environment__the_gpus_of_a_run(
    monkeypatch: pytest.MonkeyPatch, first: int, visible: str | None, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = under_torchrun._environment(torch.device("cuda", first), 2)
    assert found["CUDA_VISIBLE_DEVICES"] == expected


@pytest.fixture
def job(config: TrainConfig, tmp_path: Path) -> TrainJob:
    return TrainJob(label="a run", config=config, folder=tmp_path / "run", burn_in=None, num_processes=2)


def test_do_job__by_two_processes(job: TrainJob, write_refer: Callable[..., Any]) -> None:
    told: list[Any] = []
    assert do_job(job, Paths(data=write_refer().root), CPU, lambda *what: told.append(what))
    assert job.is_done()
    steps = [what[1:3] for what in told if what[0] == "supervised"]
    num_steps = RunFolder(job.folder).read_result()["num_steps"]
    assert steps == [(step, num_steps) for step in range(1, num_steps + 1)]
    assert json.loads((job.folder / "torchrun.json").read_text())["config"] == job.config.to_dict()


@pytest.mark.slow
def test_do_job__its_processes_end_with_a_killed_one(
    job: TrainJob, write_refer: Callable[..., Any], commands: Callable[..., Any]
) -> None:
    """They save their state, and the run goes on from it."""
    long = dataclasses.replace(job, config=dataclasses.replace(job.config, burn_in_epochs=200))
    paths = Paths(data=write_refer().root)
    told, tell = launching.CONTEXT.Pipe(duplex=False)
    command = commands(WORKER, job=long, paths=paths, device=CPU, tell=tell)
    while told.recv()[1] < 3:
        pass
    os.kill(command.pid, signal.SIGKILL)
    command.join()
    assert claims.holder(long.folder) is None
    deadline = time.monotonic() + 60
    while RunFolder(long.folder).states().latest_step is None:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    saved = RunFolder(long.folder).states().latest_step
    assert saved is not None
    assert saved >= 3
