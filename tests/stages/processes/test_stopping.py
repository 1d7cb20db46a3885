import os
import pty
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from semires.stages.processes.stopping import SIGNALS, StopRequested, StopSignals


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0)  # Python runs handlers between two instructions


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_check__raises_where_nothing_is_half_done(signum: int, code: int) -> None:
    with StopSignals() as stop:
        stop.check()
        send(signum)
        with pytest.raises(StopRequested) as caught:
            stop.check()
    assert caught.value.exit_code == code
    assert str(caught.value) == signal.Signals(signum).name
    assert isinstance(caught.value, KeyboardInterrupt)


def test_interruptible__is_left_at_once() -> None:
    reached = []

    def work(stop: StopSignals) -> None:
        with stop.interruptible():
            send(signal.SIGTERM)
            reached.append("after")

    with StopSignals() as stop:
        with pytest.raises(StopRequested):
            work(stop)
        # Asked before: not entered at all.
        with pytest.raises(StopRequested):
            work(stop)
    assert reached == []


def test_exit__earlier_handlers_are_back() -> None:
    before = [signal.getsignal(signum) for signum in SIGNALS]
    with StopSignals():
        assert all(signal.getsignal(signum) != was for signum, was in zip(SIGNALS, before, strict=True))
    assert [signal.getsignal(signum) for signum in SIGNALS] == before


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGHUP], ids=["background", "nohup"])
def test_enter__ignored_signals_stay_ignored(signum: int) -> None:
    before = signal.signal(signum, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            assert signal.getsignal(signum) is signal.SIG_IGN
            send(signum)
            stop.check()
        assert signal.getsignal(signum) is signal.SIG_IGN
    finally:
        signal.signal(signum, before)


def test_enter__in_another_thread_does_nothing() -> None:
    before = signal.getsignal(signal.SIGTERM)
    seen: list[object] = []

    def enter() -> None:
        with StopSignals() as stop:
            stop.check()
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [before]


SECOND = """
import signal, os, sys
from semires.stages.processes.stopping import StopSignals
with StopSignals():
    os.kill(os.getpid(), signal.SIGTERM)
    print("still here", flush=True)
    os.kill(os.getpid(), signal.{second})
    print("not reached", flush=True)
"""


@pytest.mark.parametrize("second", ["SIGTERM", "SIGINT"])
def test_second_signal__stops_at_once(second: str) -> None:
    finished = subprocess.run(
        [sys.executable, "-c", SECOND.format(second=second)], capture_output=True, text=True, timeout=60
    )
    assert finished.returncode == -getattr(signal, second)
    assert finished.stdout == "still here\n"


@pytest.mark.parametrize(("first", "then"), [("SIGHUP", "SIGTERM"), ("SIGTERM", "SIGHUP"), ("SIGHUP", "SIGINT")])
def test_hangup__is_no_second_signal(first: str, then: str) -> None:
    """A shell passes it on and the kernel sends it again; a session's end sends SIGTERM beside it."""
    with StopSignals() as stop:
        for name in (first, then, "SIGHUP"):
            send(getattr(signal, name))
        assert stop.requested == getattr(signal, first)


# Takes half a second to finish after it is asked to stop.
FINISHES = """
import sys, time
from pathlib import Path
from semires.stages.processes.stopping import StopRequested, StopSignals
try:
    with StopSignals() as stop:
        Path(sys.argv[1]).touch()
        while stop.requested is None:
            time.sleep(0.01)
        time.sleep(0.5)
        stop.check()
except StopRequested as stop:
    Path(sys.argv[1]).write_text(f"finished {stop}")
"""


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_hangup__a_closed_terminal_lets_the_run_finish(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text(FINISHES)
    kept = tmp_path / "kept"
    shell, terminal = pty.fork()
    if shell == 0:
        os.execlp("bash", "bash", "--norc", "--noprofile", "-i")
    os.write(terminal, f"{sys.executable} {tmp_path / 'program.py'} {kept}\n".encode())
    wait_for(kept.exists)
    os.close(terminal)
    os.waitpid(shell, 0)
    wait_for(lambda: kept.read_text() != "")
    assert kept.read_text() == "finished SIGHUP"
