"""Jobs side by side, each in a process of this machine: on the CPU with a share of torch's threads, or on GPUs.

On a CPU two runs of one thread are done before two of two in turn: a training step is a thousand short operators, and
at the end of each torch's threads wait for each other; processes do not.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

import torch

from semires.pipeline.datasets import say_once
from semires.pipeline.paths import Paths
from semires.pipeline.progress import GONE, OnProgress, console
from semires.pipeline.running.jobs import Job, attempt
from semires.pipeline.running.lines import lines_to
from semires.stages.processes.parent import end_with_parent
from semires.stages.processes.stopping import TERMINAL_SIGNALS, StopRequested

CONTEXT = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a job ended: done, not to be had because another process has claimed it, or with a failure, in a line."""

    job: Job
    was_mine: bool = True
    failure: str | None = None

    @classmethod
    def of(cls, job: Job, outcome: bool | str) -> "Ended":
        """Of what `attempt` returned."""
        return cls(job=job, failure=outcome) if isinstance(outcome, str) else cls(job=job, was_mine=outcome)


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
    counts: set[str] = field(default_factory=set)
    """What is shown of it."""


class LocalLauncher:
    """Processes of this machine. `on_progress` is told what each job does, under its label, until that is done.

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

    def start(self, job: Job) -> None:
        """As `Launcher`."""
        taken = {running.slot for running in self._running.values()}
        slot = next(number for number in range(self.num_workers) if number not in taken)
        reader, writer = CONTEXT.Pipe(duplex=False)
        process: BaseProcess = CONTEXT.Process(
            target=_work, args=(job, self._paths, self._devices[slot], self._num_threads, writer), daemon=False
        )
        with terminal_unheard():  # at whose end a signal may raise: by then the process is known to `stop`
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
            kind, *content = reader.recv()
        except (EOFError, OSError):  # OSError in the middle of a message
            running.process.join()
            code = running.process.exitcode
            why = " (killed, for want of memory perhaps)" if code == -signal.SIGKILL else ""
            kind, content = "ended", [f"its process ended with exit code {code}{why}; what it had to say is above"]
        if kind == "line":
            say_once(*content)  # of a data set each of its runs says the same
        elif kind == "progress":
            self._show(running, *content)
        else:
            running.process.join()  # it says that it is done before it has cleaned up
            self._forget(reader)
            return [Ended.of(running.job, *content)]
        return []

    def _show(self, running: _Running, what: str, done: int, total: int, note: str = "") -> None:
        count = f"{running.job.label}: {what}"
        running.counts.add(count)
        self._on_progress(count, done, total, note)
        if done >= total:
            self._hide(running, count)

    def _hide(self, running: _Running, count: str) -> None:
        running.counts.discard(count)
        self._on_progress(count, 0, GONE)

    def _forget(self, reader: Connection) -> None:
        reader.close()
        running = self._running.pop(reader)
        for count in list(running.counts):
            self._hide(running, count)

    def stop(self) -> None:
        """As `Launcher`."""
        for running in self._running.values():
            running.process.terminate()
        for reader, running in list(self._running.items()):
            self._forget(reader)  # nobody listens any more, and nobody waits for one who does
            running.process.join()


@contextmanager
def terminal_unheard() -> Iterator[None]:
    """What is started meanwhile never hears Ctrl-C, nor that its terminal is closed, which reach every process of the
    terminal: its parent ends it. It inherits that they are blocked. Here they wait for the end of the block: another
    thread may still take one, so none is handled before."""
    heard: list[int] = []
    handled = [signum for signum in TERMINAL_SIGNALS if signal.getsignal(signum) not in (signal.SIG_IGN, None)]
    previous = {signum: signal.signal(signum, lambda found, frame: heard.append(found)) for signum in handled}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, TERMINAL_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        for signum, handler in previous.items():
            signal.signal(signum, handler)
        for signum in heard:
            os.kill(os.getpid(), signum)


def _work(job: Job, paths: Paths, device: torch.device, num_threads: int, writer: Connection) -> None:
    end_with_parent()
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.set_num_threads(num_threads)

    def tell(kind: str, *content: Any) -> None:
        with suppress(BrokenPipeError):  # the parent is gone: this process is asked to end too
            writer.send((kind, *content))

    console.file = lines_to(lambda line: tell("line", line))
    try:
        tell("ended", attempt(job, paths, device, lambda *what: tell("progress", *what)))
    except StopRequested as stop:
        tell("ended", f"stopped by {stop}; type the command again to go on")
