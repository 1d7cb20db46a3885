"""Where a run's time goes: training, waiting for data; and when the next state is due."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Clock:
    """Seconds of a run over all processes that worked on it.

    seconds: until `read` was last called. save_minutes: between two states.
    """

    def __init__(self, save_minutes: float) -> None:
        self.seconds = 0.0
        self._save_seconds = save_minutes * 60
        self._started = self._saved = self._counted_from = time.perf_counter()
        self._waited = 0.0
        self._steps = 0

    def start(self, seconds: float) -> None:
        """Go on from what earlier processes took."""
        self.seconds = seconds
        now = time.perf_counter()
        self._started, self._saved = now - seconds, now
        self.restart_counts()

    def read(self) -> float:
        """Seconds of the run by now."""
        self.seconds = time.perf_counter() - self._started
        return self.seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count what runs inside as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    def count_step(self) -> None:
        """Count a step of training."""
        self._steps += 1

    def restart_counts(self) -> None:
        """Count steps and waiting from now on: not what evaluation took."""
        self._counted_from, self._waited, self._steps = time.perf_counter(), 0.0, 0

    def speed(self) -> tuple[float, float]:
        """(steps a second, share of the time that went into waiting for data) since `restart_counts`."""
        seconds = max(time.perf_counter() - self._counted_from, 1e-9)
        return self._steps / seconds, self._waited / seconds

    @property
    def is_save_due(self) -> bool:
        """Whether the last state is older than it may be."""
        return time.perf_counter() - self._saved >= self._save_seconds

    def saved(self) -> None:
        """A state was just written, or could not be."""
        self._saved = time.perf_counter()
