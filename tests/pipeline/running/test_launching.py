import dataclasses
import multiprocessing
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import GONE, console
from semires.pipeline.recipes import train_recipe
from semires.pipeline.running import claims, launching
from semires.pipeline.running.jobs import Job, TrainJob
from semires.pipeline.running.launching import Ended, LocalLauncher
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
Attempt = Callable[..., bool | str]

# A command whose two jobs never end; asked to, they save their state.
COMMAND = """
import multiprocessing, os, signal, sys, time
from semires.pipeline.running import launching
from semires.stages.processes.stopping import StopRequested, StopSignals

def never_ends(job, paths, device, tell):
    with StopSignals() as stop:
        told.send(os.getpid())
        while stop.requested is None:
            time.sleep(0.01)
            tell("training", 1, 2)
        job.folder.mkdir()
        (job.folder / "state").write_text("saved")
        raise StopRequested(stop.requested)

os.setsid()
# What started it may have been started where these are ignored, or blocked.
signal.pthread_sigmask(signal.SIG_SETMASK, [])
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
sys.stderr = errors.open("w", buffering=1)
launching.CONTEXT = multiprocessing.get_context("fork")
launching.attempt = never_ends
launcher = launching.LocalLauncher(None, [launching.torch.device("cpu")] * 2, 1, lambda *what: None)
try:
    for job in jobs:
        launcher.start(job)
    while True:
        launcher.ended(1.0)
finally:
    launcher.stop()
"""


@pytest.fixture
def job(tmp_path: Path) -> TrainJob:
    return TrainJob(label="[bold]a[/bold]", config=train_recipe("refcoco"), folder=tmp_path / "a", burn_in=None)


@pytest.fixture
def doing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., LocalLauncher]:
    """A launcher whose processes, forked from this one, do what they are told in place of a job."""
    monkeypatch.setattr(launching, "CONTEXT", multiprocessing.get_context("fork"))

    def make(attempt: Attempt, *, devices: Any = (CPU,), num_threads: int = 1, told: Any = None) -> LocalLauncher:
        monkeypatch.setattr(launching, "attempt", attempt)
        show = (lambda *what: None) if told is None else (lambda *what: told.append(what))
        return LocalLauncher(Paths(data=tmp_path), list(devices), num_threads, show)

    return make


def all_ended(launcher: LocalLauncher, num_jobs: int) -> list[Ended]:
    found: list[Ended] = []
    deadline = time.monotonic() + 60
    while len(found) < num_jobs:
        assert time.monotonic() < deadline
        found += launcher.ended(1.0)
    return found


def other(job: TrainJob, name: str) -> TrainJob:
    return dataclasses.replace(job, label=name, folder=job.folder.with_name(name))


def test_local_launcher__what_is_told_reaches_the_display(
    doing: Callable[..., LocalLauncher], job: TrainJob, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def attempt(job: Job, paths: Paths, device: torch.device, tell: Any) -> bool:
        console.print(f"{tmp_path}: [bold]what all say[/bold]", soft_wrap=True)
        console.print(f"{job.label} {'x' * 200}", soft_wrap=True)
        tell("training", 1, 2, "loss 0.3 · 44 samples/s")
        tell("evaluation", 4, 4)
        return True

    told: list[Any] = []
    launcher = doing(attempt, devices=[CPU] * 2, told=told)
    launcher.start(job)
    launcher.start(other(job, "b"))
    assert {ended.job.label for ended in all_ended(launcher, 2)} == {"[bold]a[/bold]", "b"}
    assert sorted(capsys.readouterr().out.splitlines()) == sorted(
        [f"{tmp_path}: [bold]what all say[/bold]", f"[bold]a[/bold] {'x' * 200}", f"b {'x' * 200}"]
    )
    # What is shown of a job goes with what it did, at the latest with the job.
    assert [what for what in told if what[0].startswith("b")] == [
        ("b: training", 1, 2, "loss 0.3 · 44 samples/s"),
        ("b: evaluation", 4, 4, ""),
        ("b: evaluation", 0, GONE),
        ("b: training", 0, GONE),
    ]


@pytest.mark.parametrize("outcome", [True, False, "expected [bold]more[/bold], found less"])
def test_local_launcher__how_a_job_ended(
    doing: Callable[..., LocalLauncher], job: TrainJob, outcome: bool | str
) -> None:
    launcher = doing(lambda *args: outcome)
    launcher.start(job)
    (ended,) = all_ended(launcher, 1)
    expected = Ended(job=job, failure=outcome) if isinstance(outcome, str) else Ended(job=job, was_mine=outcome)
    assert ended == expected
    assert launcher.ended(10.0) == []  # at once, for there is nothing to wait for


@pytest.mark.usefixtures("quick_processes")
def test_local_launcher__what_a_job_refuses(tmp_path: Path, job: TrainJob) -> None:
    before = signal.getsignal(signal.SIGINT)
    launcher = LocalLauncher(Paths(data=tmp_path / "none"), [CPU], 1, lambda *what: None)
    launcher.start(job)
    (ended,) = all_ended(launcher, 1)
    assert ended.failure is not None
    assert str(tmp_path / "none" / "refcoco") in ended.failure
    assert signal.getsignal(signal.SIGINT) is before


def test_local_launcher__a_process_that_died(
    doing: Callable[..., LocalLauncher], job: TrainJob, capfd: pytest.CaptureFixture[str]
) -> None:
    def attempt(job: Job, paths: Paths, device: torch.device, tell: Any) -> bool:
        tell("training", 1, 2)
        if job.label == "b":
            raise RuntimeError("a bug")
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    told: list[Any] = []
    launcher = doing(attempt, devices=[CPU] * 2, told=told)
    launcher.start(job)
    launcher.start(other(job, "b"))
    failures = {ended.job.label: ended.failure for ended in all_ended(launcher, 2)}
    said = "what it had to say is above"
    assert failures == {
        "[bold]a[/bold]": f"its process ended with exit code -9 (killed, for want of memory perhaps); {said}",
        "b": f"its process ended with exit code 1; {said}",
    }
    assert "RuntimeError: a bug" in capfd.readouterr().err
    assert ("b: training", 0, GONE) in told


def test_local_launcher__threads_and_devices_of_each(
    doing: Callable[..., LocalLauncher], job: TrainJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    devices = [torch.device("cuda", 0), torch.device("cuda", 2)]
    launcher = doing(
        lambda job, paths, device, tell: f"{device} {chosen} {torch.get_num_threads()}", devices=devices, num_threads=3
    )
    launcher.start(job)
    launcher.start(other(job, "b"))
    texts = [f"{device} {[device]} 3" for device in devices]
    found = {ended.job.label: ended.failure for ended in all_ended(launcher, 2)}
    assert [found["[bold]a[/bold]"], found["b"]] == texts
    launcher.start(other(job, "c"))  # on the first that is free
    assert all_ended(launcher, 1)[0].failure == texts[0]


def is_alive(pid: int) -> bool:
    return claims._started(pid) is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_local_launcher__its_jobs_end_with_the_command(
    tmp_path: Path, job: TrainJob, commands: Callable[..., Any], number: signal.Signals
) -> None:
    """Killed, the command alone hears of it; Ctrl-C and a closed terminal reach all, and the command alone speaks.
    State is saved."""
    errors, jobs = tmp_path / "stderr", [job, other(job, "b")]
    told, writer = launching.CONTEXT.Pipe(duplex=False)
    command = commands(COMMAND, jobs=jobs, errors=errors, told=writer)
    children = [told.recv() for _ in jobs]
    assert all(map(is_alive, children))
    if number in (signal.SIGINT, signal.SIGHUP):
        os.killpg(command.pid, number)
    else:
        os.kill(command.pid, number)
    command.join(60)
    deadline = time.monotonic() + 60
    while any(map(is_alive, children)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(is_alive, children))
    assert [(job.folder / "state").read_text() for job in jobs] == ["saved", "saved"]
    said = errors.read_text()
    assert ("KeyboardInterrupt" in said) == (number == signal.SIGINT)
    assert said.count("Traceback") == (number == signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_terminal_unheard__a_signal_waits_for_its_end(number: signal.Signals) -> None:
    """One that comes while a process is started was lost once: the command went on, and nobody told its jobs."""
    heard, done = list[int](), list[int]()
    before = signal.signal(number, lambda signum, frame: heard.append(signum))
    try:
        with launching.terminal_unheard():
            os.kill(os.getpid(), number)
            started = subprocess.Popen(["sleep", "60"])
            started.send_signal(number)
            done += heard
        assert (done, heard) == ([], [number])
        with pytest.raises(subprocess.TimeoutExpired):
            started.wait(0.2)
        started.terminate()
        assert started.wait(60) == -signal.SIGTERM
    finally:
        signal.signal(number, before)


@pytest.mark.usefixtures("quick_processes")
def test_stop__training_has_saved_its_state(tiny_study: Any, job: TrainJob) -> None:
    config = dataclasses.replace(train_recipe("refshapes"), labeled=0.25, burn_in_epochs=1000, num_workers=0)
    job = dataclasses.replace(job, config=config.burn_in())
    steps: list[int] = []
    launcher = LocalLauncher(tiny_study.paths, [CPU], 1, lambda what, done, *rest: steps.append(done))
    launcher.start(job)
    while not steps:
        assert launcher.ended(0.1) == []
    launcher.stop()
    saved = RunFolder(job.folder).states().latest_step
    assert saved is not None
    assert saved >= steps[0] > 0
    assert not (job.folder / claims.NAME).exists()
