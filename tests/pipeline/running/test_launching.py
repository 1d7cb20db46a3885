import dataclasses
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.recipes import train_recipe
from semires.pipeline.running.side_by_side import Job, _telling, is_worth_it, train_side_by_side
from semires.stages.data.errors import InputError

# What it starts imports neither torch nor anything that does, so that it is there in no time.
PARENT = """
import os, time
from semires.stages.processes.parent import end_with_parent

def never_ends(job, paths, num_threads, writer):
    end_with_parent()
    writer.send((str(os.getpid()), 1, 1))
    time.sleep(600)

if __name__ == "__main__":
    from semires.pipeline.running import side_by_side
    side_by_side._do = never_ends
    show = lambda what, *rest: print(what, flush=True)
    side_by_side.train_side_by_side([None, None], None, show)
"""


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_telling__notes_come_through_the_pipe() -> None:
    reader, writer = multiprocessing.Pipe(duplex=False)
    tell = _telling(writer, "semires")
    tell("semires", 1, 10, "loss 0.3 · 44 samples/s")
    tell("evaluation", 2, 4)
    assert [reader.recv() for _ in range(2)] == [
        ("semires", 1, 10, "loss 0.3 · 44 samples/s"),
        ("evaluation of semires", 2, 4, ""),
    ]


@pytest.mark.usefixtures("quick_processes")
def test_train_side_by_side__error_of_one_process_is_raised_here(tmp_path: Path) -> None:
    job = Job(config=train_recipe("refcoco"), folder=tmp_path / "run", store=None, burn_in=None)
    jobs = [job, dataclasses.replace(job, folder=tmp_path / "other")]
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(InputError, match="refcoco"):
        train_side_by_side(jobs, Paths(data=tmp_path), ignore)
    assert signal.getsignal(signal.SIGINT) is before


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # A dead process whose new parent has not looked yet is a zombie.
    stat = Path(f"/proc/{pid}/stat")
    return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_train_side_by_side__ends_with_its_parent(tmp_path: Path, number: signal.Signals) -> None:
    """Killed, the parent alone hears of it; Ctrl-C goes to all, and the parent alone speaks."""
    script, errors = tmp_path / "parent.py", tmp_path / "stderr"
    script.write_text(PARENT)
    with (
        errors.open("w") as stderr,
        subprocess.Popen(
            [sys.executable, script], stdout=subprocess.PIPE, stderr=stderr, text=True, start_new_session=True
        ) as parent,
    ):
        try:
            assert parent.stdout is not None
            children = [int(parent.stdout.readline()) for _ in range(2)]
            assert all(map(is_alive, children))
            if number == signal.SIGINT:
                os.killpg(parent.pid, number)
            else:
                parent.send_signal(number)
            parent.wait(60)
            deadline = time.monotonic() + 60
            while any(map(is_alive, children)) and time.monotonic() < deadline:
                time.sleep(0.05)
            assert not any(map(is_alive, children))
        finally:
            parent.kill()
    if number == signal.SIGINT:
        assert errors.read_text().count("KeyboardInterrupt") == 1


@pytest.mark.parametrize(
    ("num_jobs", "num_threads", "expected"), [(1, 8, False), (2, 1, False), (2, 2, True), (3, 2, True), (3, 16, True)]
)
def test_is_worth_it__several_runs_and_several_threads(
    monkeypatch: pytest.MonkeyPatch, num_jobs: int, num_threads: int, expected: bool
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    assert is_worth_it(num_jobs, torch.device("cpu")) is expected
    assert not is_worth_it(num_jobs, torch.device("cuda"))


@pytest.mark.usefixtures("quick_processes")
def test_train_side_by_side__names_the_run_that_died(tmp_path: Path) -> None:
    job = Job(config=train_recipe("refcoco"), folder=tmp_path / "run", store=None, burn_in=None)
    broken = dataclasses.replace(job, config=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=f"training in {tmp_path / 'run'} ended with exit code 1"):
        train_side_by_side([broken], Paths(data=tmp_path), ignore)
