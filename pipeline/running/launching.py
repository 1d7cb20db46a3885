"""Jobs side by side, each in a process of this machine: on the CPU with a share of torch's threads, or on GPUs.

On a CPU two runs of one thread are done before two of two in turn: a training step is a thousand short operators, and
at the end of each torch's threads wait for each other; processes do not.
"""

import multiprocessing
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Protocol

import torch

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.jobs import Job, do_job
from semires.stages.data.errors import InputError
from semires.stages.processes.parent import end_with_parent
from semires.stages.processes.stopping import StopRequested

CONTEXT = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads

Failure = InputError | StoreError | OSError | MemoryError


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended: done, not to be had because another process has claimed it, or with an error."""

    job: Job
    was_mine: bool = True
    failure: Failure | None = None


class Launcher(Protocol):
    """Where jobs are done."""

    num_workers: int
    """How many jobs it does at once."""

    def start(self, job: Job) -> None:
        """Begin a job; at most `num_workers` are under way."""

    def ended(self, seconds: float) -> list[Ended]:
        """The jobs that have ended since it was last asked; waits for one, `seconds` at most."""
        ...

    def stop(self) -> None:
        """End the jobs under way, each with its state saved."""


@dataclass(frozen=True, kw_only=True)
class _Running:
    job: Job
    slot: int
    process: BaseProcess


class LocalLauncher:
    """Processes of this machine; `on_progress` is told of each worker, by its number.

    devices: what each worker uses. num_threads: torch's threads of each, on the CPU: the same however many are under
    way, because a run's last bits depend on them.

    To be used in the main thread, of a script under ``if __name__ == "__main__"``: the processes import it.
    """

    def __init__(
        self, paths: Paths, devices: Sequence[torch.device], num_threads: int, on_progress: OnProgress
    ) -> None:
        self.num_workers = len(devices)
        self._paths = paths
        self._devices = list(devices)
        self._num_threads = num_threads
        self._on_progress = on_progress
        self._running: dict[Connection, _Running] = {}
        self._said: set[str] = set()

    def start(self, job: Job) -> None:
        """As `Launcher`."""
        taken = {running.slot for running in self._running.values()}
        slot = next(number for number in range(self.num_workers) if number not in taken)
        reader, writer = CONTEXT.Pipe(duplex=False)
        process: BaseProcess = CONTEXT.Process(
            target=_work, args=(job, self._paths, self._devices[slot], self._num_threads, writer), daemon=False
        )
        with _interrupts_ignored():
            process.start()
        writer.close()  # the process has its own: the pipe ends with it
        self._running[reader] = _Running(job=job, slot=slot, process=process)

    def ended(self, seconds: float) -> list[Ended]:
        """As `Launcher`; passes on what the jobs tell."""
        found: list[Ended] = []
        deadline = time.monotonic() + seconds
        while self._running and not found and (left := deadline - time.monotonic()) > 0:
            for reader in wait(list(self._running), timeout=left):
                assert isinstance(reader, Connection)
                found += self._heard(reader)
        return found

    def _heard(self, reader: Connection) -> list[Ended]:
        """Pass on what a job tells, or say that it has ended."""
        running = self._running[reader]
        try:
            message = reader.recv()
        except EOFError:
            running.process.join()
            message = InputError(
                f"ended with exit code {running.process.exitcode} (-9: killed, for want of memory perhaps); what it "
                "had to say is above"
            )
        if isinstance(message, str):
            if message not in self._said:  # of a data set each of its runs says the same
                console.print(message, soft_wrap=True)
            self._said.add(message)
            return []
        if isinstance(message, tuple):
            what, done, total, note = message
            note = " · ".join(part for part in (f"{running.job.label}: {what}", note) if part)
            self._on_progress(f"worker {running.slot + 1}", done, total, note)
            return []
        running.process.join()  # it says that it is done before it has cleaned up
        del self._running[reader]
        if isinstance(message, bool):
            return [Ended(job=running.job, was_mine=message)]
        return [Ended(job=running.job, failure=message)]

    def stop(self) -> None:
        """As `Launcher`."""
        for running in self._running.values():
            running.process.terminate()
        for running in self._running.values():
            running.process.join()
        self._running.clear()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started meanwhile never sees Ctrl-C, which goes to every process of a terminal: its parent ends it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _work(job: Job, paths: Paths, device: torch.device, num_threads: int, writer: Connection) -> None:
    end_with_parent()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    else:
        torch.set_num_threads(num_threads)
    console.file = _Lines(writer)  # type: ignore[assignment]
    try:
        writer.send(do_job(job, paths, device, lambda *what: writer.send((*what, "")[:4])))
    except (InputError, StoreError, OSError, MemoryError) as error:
        writer.send(error)
    except StopRequested:  # by the parent, or with it: its state is saved
        sys.exit(1)


class _Lines:
    """What a job prints, sent to the process that has the display, line by line."""

    def __init__(self, writer: Connection) -> None:
        self._writer = writer

    def write(self, text: str) -> int:
        """Send the text, if it is more than the end of a line."""
        if text.strip():
            self._writer.send(text.rstrip("\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""
