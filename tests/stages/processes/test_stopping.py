import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from semires.stages.processes.stopping import StopRequested, StopSignals


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)
    time.sleep(0)  # Python runs handlers between two instructions


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
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
    before = [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)]
    with StopSignals():
        assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] != before
    assert [signal.getsignal(signum) for signum in (signal.SIGINT, signal.SIGTERM)] == before


def test_enter__ignored_signals_stay_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopSignals() as stop:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            send(signal.SIGINT)
            stop.check()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


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
