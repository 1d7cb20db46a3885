"""SIGTERM, SIGINT and SIGHUP: finish what must be finished, then stop; a second SIGTERM or SIGINT stops at once."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

HANGUP: int | None = getattr(signal, "SIGHUP", None)  # Windows has none
TERMINAL_SIGNALS: tuple[int, ...] = (signal.SIGINT,) if HANGUP is None else (signal.SIGINT, HANGUP)
"""Of Ctrl-C and of a terminal that is closed: every process of the terminal gets them."""
SIGNALS = (*TERMINAL_SIGNALS, signal.SIGTERM)


class StopRequested(KeyboardInterrupt):
    """The run was asked to stop; everything finished is committed by the time a caller of `cache_images` sees this.

    A KeyboardInterrupt, so that code which handles Ctrl-C handles the others the same way.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum
        """What a shell expects of a program that a signal ended: 130 for SIGINT, 143 for SIGTERM, 129 for SIGHUP."""


class StopSignals:
    """While entered, turns the first of `SIGNALS` into StopRequested, at points where nothing is half done.

    The exception is raised in `interruptible` blocks at once, elsewhere by the next `check`. A second SIGTERM or SIGINT
    has its default action: the process ends there and then. SIGHUP is never counted so, for nobody sends it who waits:
    of one closed terminal the shell passes it on, the kernel sends it again, and a session's end adds SIGTERM. A signal
    that is ignored (nohup, a shell's background job) stays ignored. Outside of the main thread, where Python allows no
    handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.requested: int | None = None
        """The number of the first signal that has come."""
        self._is_insisted = False
        self._may_raise = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            for signum in SIGNALS:
                if signal.getsignal(signum) is not signal.SIG_IGN:
                    self._previous[signum] = signal.signal(signum, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)
        self._previous = {}

    def check(self) -> None:
        """Raise StopRequested if a signal has come."""
        if self.requested is not None:
            raise StopRequested(self.requested)

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """A block that may be left anywhere: device work, which takes minutes on a CPU, or waiting."""
        self._may_raise = True
        try:
            self.check()
            yield
        finally:
            self._may_raise = False

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum != HANGUP:
            if self._is_insisted:
                signal.signal(signum, signal.SIG_DFL)
                os.kill(os.getpid(), signum)
            self._is_insisted = True
        if self.requested is None:
            self.requested = signum
            if self._may_raise:
                raise StopRequested(signum)
