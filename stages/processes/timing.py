"""Milliseconds that each phase of a piece of work takes."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch


class PhaseTimer:
    """Adds up wall time by phase; costs nothing and counts nothing while `enabled` is False.

    names: the phases, in the order in which `milliseconds` has them.

    On CUDA the device is synchronized at both ends of a phase, so that its work is counted where it was asked for:
    measuring takes away the overlap of host and device, and the phases add up to more than an unmeasured run.
    """

    def __init__(self, names: Sequence[str], device: torch.device, *, enabled: bool) -> None:
        self.enabled = enabled
        self.milliseconds = dict.fromkeys(names, 0.0)
        self._device = device

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what runs inside as phase `name`, one of the names; phases do not nest."""
        if not self.enabled:
            yield
            return
        self._wait()
        start = time.perf_counter()
        try:
            yield
        finally:
            self._wait()
            self.milliseconds[name] += 1e3 * (time.perf_counter() - start)

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
