import dataclasses
import errno
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.views import CandidateView
from semires.pipeline.paths import Paths
from semires.pipeline.running import claims, jobs
from semires.pipeline.running.jobs import CandidatesJob, TrainJob, attempt, do_job
from semires.stages.data.errors import InputError
from semires.stages.processes.stopping import StopRequested
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def paths(write_refer: Callable[..., Any]) -> Paths:
    return Paths(data=write_refer("refcoco").root)


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    config = TrainConfig(split="refcoco", model="nano", method="supervised", labeled=0.5, burn_in_epochs=1)
    small = dataclasses.replace(config, batch_burn_in=4, num_evaluations=1, num_workers=0, precision="fp32")
    return TrainJob(label="a run", config=small, folder=tmp_path / "run", burn_in=None)


def test_do_job__a_run_and_its_scores(job: TrainJob, paths: Paths) -> None:
    told = []
    assert not job.is_done()
    assert do_job(job, paths, CPU, lambda *what: told.append(what[0]))
    assert job.is_done()
    assert list(dict.fromkeys(told)) == [
        *("supervised", "evaluation"),
        *(f"expressions of {split}" for split in ("val", "testA", "testB")),
    ]
    assert not (job.folder / claims.NAME).exists()
    (job.folder / "scores.json").unlink()
    assert not job.is_done()  # scored, it is
    assert do_job(job, paths, CPU, ignore)
    assert job.is_done()


def test_do_job__claimed_by_another_process(job: TrainJob, paths: Paths) -> None:
    with claims.claimed(job.folder):
        assert not do_job(job, paths, CPU, ignore)
        assert os.listdir(job.folder) == [claims.NAME]


def test_do_job__a_claim_that_was_lost(job: TrainJob, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process does it now: this one's part ends, and is no failure."""

    def train(*args: Any, **options: Any) -> None:
        claim = job.folder / claims.NAME
        claim.write_text(claim.read_text().replace('"token": "', '"token": "other'))
        time.sleep(10)

    monkeypatch.setattr(jobs, "train", train)
    monkeypatch.setattr(claims.claimed.__wrapped__, "__kwdefaults__", {"beat": 0.02, "death": 100.0})
    assert not do_job(job, paths, CPU, ignore)
    assert "other" in (job.folder / claims.NAME).read_text()


def test_do_job__a_signal_saves_the_state(job: TrainJob, paths: Paths) -> None:
    long = dataclasses.replace(job, config=dataclasses.replace(job.config, burn_in_epochs=1000))

    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopRequested):
        do_job(long, paths, CPU, stop)
    assert RunFolder(long.folder).states().latest_step == 3
    assert not (long.folder / claims.NAME).exists()


def test_do_job__candidates(tiny_study: Any) -> None:
    paths = tiny_study.paths
    config = TrainConfig(split="refshapes", model="nano")
    job = CandidatesJob(label="candidates", config=config, folder=paths.runs / "candidates")
    assert do_job(job, paths, CPU, ignore)
    store = paths.store("refshapes")
    assert len(CandidateView(store, config.model_image_size)) == len(CandidateStore(store)) == 12


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (InputError("images that cannot be read"), "images that cannot be read"),
        (StoreError("no store"), "no store"),
        (OSError(errno.ENOSPC, "No space left on device", "file"), "expected space for the run's files, found none"),
        (PermissionError(errno.EACCES, "Permission denied", "/file"), "[Errno 13] Permission denied: '/file'"),
        (torch.OutOfMemoryError("CUDA out of memory"), "expected a step to fit into the memory of cpu"),
        (MemoryError(), "expected enough memory, found none left"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_attempt__what_a_user_can_mend_is_a_line(
    job: TrainJob, paths: Paths, monkeypatch: pytest.MonkeyPatch, error: Exception, expected: str
) -> None:
    def train(*args: Any, **options: Any) -> None:
        raise error

    monkeypatch.setattr(jobs, "train", train)
    found = attempt(job, paths, CPU, ignore)
    assert isinstance(found, str)
    assert found.startswith(expected)
    assert len(found.splitlines()) == 1


def test_do_job__loggers_do_not_print(
    job: TrainJob, paths: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(jobs, "train", lambda *args, **options: print("* a logger's own words"))
    monkeypatch.setattr(jobs, "evaluate_run", lambda *args: None)
    monkeypatch.delenv("WANDB_SILENT", raising=False)
    do_job(dataclasses.replace(job, log_to=("tensorboard",)), paths, CPU, ignore)
    assert capsys.readouterr().out == ""
    assert os.environ["WANDB_SILENT"] == "true"
