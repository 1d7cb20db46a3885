import contextlib
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.running import claims
from semires.pipeline.running.claims import NAME, ClaimLost, claimed, holder
from semires.stages.processes.stopping import StopRequested, StopSignals

# Claims what it can of the folders named, says which, and holds them until its standard input ends.
RACER = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from semires.pipeline.running.claims import claimed

go, *folders = map(Path, sys.argv[1:])
print("ready", flush=True)
while not go.exists():
    pass
with ExitStack() as held:
    print(*[folder.name for folder in folders if held.enter_context(claimed(folder))], flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start `python -c CODE ARGUMENTS`; what is still there at the end is killed."""
    with contextlib.ExitStack() as held:

        def begin(code: str, *arguments: object) -> subprocess.Popen[str]:
            process = held.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", code, *map(str, arguments)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            held.callback(process.kill)
            return process

        yield begin


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip("\n")


def holding(start: Callable[..., subprocess.Popen[str]], folder: Path) -> subprocess.Popen[str]:
    """A process that holds a folder."""
    (folder.parent / "go").touch()
    process = start(RACER, folder.parent / "go", folder)
    assert [line_of(process), line_of(process)] == ["ready", folder.name]
    return process


def write_claim(folder: Path, **changes: Any) -> None:
    """The claim of this process, changed."""
    folder.mkdir(exist_ok=True)
    (folder / NAME).write_text(json.dumps({"token": "theirs", **claims._here(), **changes}))


def age(folder: Path, seconds: float) -> None:
    then = time.time() - seconds
    os.utime(folder / NAME, (then, then))


@pytest.mark.parametrize("is_taken_over", [False, True])
def test_claimed__one_of_several_processes(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], is_taken_over: bool
) -> None:
    folders = [tmp_path / f"run{number}" for number in range(40)]
    for folder in folders if is_taken_over else ():
        write_claim(folder, started="0")  # of a process that had this one's number before
    racers = [start(RACER, tmp_path / "go", *folders) for _ in range(4)]
    assert [line_of(racer) for racer in racers] == ["ready"] * 4
    (tmp_path / "go").touch()
    got = [name for racer in racers for name in line_of(racer).split()]
    assert sorted(got) == sorted(folder.name for folder in folders)
    assert all(os.listdir(folder) == [NAME] for folder in folders)
    for racer in racers:
        racer.communicate()
    assert all(os.listdir(folder) == [] for folder in folders)


def test_claimed__a_live_one_refuses(tmp_path: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    folder = tmp_path / "run"
    process = holding(start, folder)
    content = (folder / NAME).read_text()
    with claimed(folder) as is_mine:
        assert not is_mine
    assert holder(folder) == f"process {process.pid} on {json.loads(content)['host']}"
    assert (folder / NAME).read_text() == content
    process.communicate()
    assert holder(folder) is None
    with claimed(folder) as is_mine:
        assert is_mine
        with claimed(folder) as is_mine_again:
            assert not is_mine_again


@pytest.mark.parametrize("is_zombie", [False, True])
def test_claimed__of_a_killed_process_is_dead_at_once(
    tmp_path: Path, start: Callable[..., subprocess.Popen[str]], is_zombie: bool
) -> None:
    folder = tmp_path / "run"
    process = holding(start, folder)
    process.kill()
    if is_zombie:  # dead, and its parent has not looked
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    else:
        process.wait()
    assert holder(folder) is None
    with claimed(folder) as is_mine:
        assert is_mine
        assert os.listdir(folder) == [NAME]


def test_claimed__of_another_process_that_had_the_number(tmp_path: Path) -> None:
    write_claim(tmp_path / "run")
    assert holder(tmp_path / "run") is not None
    write_claim(tmp_path / "run", started="1")
    assert holder(tmp_path / "run") is None


@pytest.mark.parametrize("machine", ["another", None])
def test_claimed__of_another_machine_dies_without_beats(tmp_path: Path, machine: str | None) -> None:
    folder = tmp_path / "run"
    write_claim(folder, machine=machine, started="1", host="far")
    age(folder, claims.SECONDS_TO_DEATH - 30)
    assert holder(folder) == f"process {os.getpid()} on far"
    with claimed(folder) as is_mine:
        assert not is_mine
    age(folder, claims.SECONDS_TO_DEATH + 30)
    assert holder(folder) is None
    with claimed(folder) as is_mine:
        assert is_mine
        assert os.listdir(folder) == [NAME]


def test_claimed__by_the_clock_of_the_file_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    write_claim(folder, machine="another")
    with monkeypatch.context() as patched:
        patched.setattr(time, "time", lambda: 1e12)  # this machine's clock is far ahead
        assert holder(folder) is not None


def test_claimed__one_that_says_nothing_is_being_written(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / NAME).touch()
    assert holder(folder) == "another process"
    with claimed(folder) as is_mine:
        assert not is_mine
    age(folder, claims.SECONDS_TO_DEATH + 30)  # its writer was killed
    with claimed(folder) as is_mine:
        assert is_mine


def wait_for(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_claimed__beats_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with claimed(folder, beat=0.02) as is_mine:
        assert is_mine
        for _ in range(2):
            age(folder, 1000)
            wait_for(lambda: time.time() - (folder / NAME).stat().st_mtime < 100)
        content = json.loads((folder / NAME).read_text())
        (folder / NAME).unlink()  # as one that looked and died leaves it
        wait_for((folder / NAME).exists)
        wait_for(lambda: holder(folder) == f"process {os.getpid()} on {content['host']}")
    assert os.listdir(folder) == []


def test_claimed__a_holder_that_lost_it_stops(tmp_path: Path) -> None:
    """Taken for dead while it slept: what it does ends, and the claim of who does it now stays."""
    folder, other = tmp_path / "run", tmp_path / "other"
    write_claim(other)

    def work() -> None:
        with claimed(folder, beat=0.02) as is_mine:
            assert is_mine
            (other / NAME).replace(folder / NAME)
            time.sleep(10)

    with StopSignals() as stop, stop.interruptible(), pytest.raises(ClaimLost):
        work()
    assert stop.requested == signal.SIGTERM
    assert json.loads((folder / NAME).read_text())["token"] == "theirs"


def test_claimed__a_signal_of_somebody_else_is_not_a_loss(tmp_path: Path) -> None:
    def work() -> None:
        with claimed(tmp_path / "run"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(10)

    with StopSignals() as stop, stop.interruptible(), pytest.raises(StopRequested):
        work()
    assert os.listdir(tmp_path / "run") == []


def test_claimed__folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"), claimed(tmp_path / "file" / "run"):
        pass


def test_claimed__a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # files can be made, nothing can be written
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EFBIG)), claimed(tmp_path / "run"):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path / "run") == []
