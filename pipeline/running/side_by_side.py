"""Training runs, and candidates, side by side, a process each: two of one thread are done before two of two in turn.

A training step is a thousand short operators, and at the end of each torch's threads wait for each other; processes do
not.
"""

import io
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.loggers import run_loggers
from semires.pipeline.running.stage_runs import prepare_candidates
from semires.pipeline.scoring.scores import evaluate_run
from semires.stages.data.datasets import open_dataset
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.parent import end_with_parent
from semires.stages.processes.stopping import StopRequested
from semires.stages.train.config import TrainConfig
from semires.stages.train.run import train_run

CONTEXT = multiprocessing.get_context("spawn")  # a forked process cannot use torch's threads


@dataclass(frozen=True, kw_only=True)
class Job:
    """A run whose data, and candidates in `store` with their view, are there; arguments as `train_run` has them."""

    config: TrainConfig
    folder: Path
    store: str | Path | None
    burn_in: Path | None
    log_to: Sequence[str] = ()

    @property
    def what(self) -> str:
        """What it does, for an error's text."""
        return f"training in {self.folder}"


@dataclass(frozen=True, kw_only=True)
class CandidatesJob:
    """The candidates in `store` of the data set that `config` names, and their view at its training size."""

    config: TrainConfig
    store: str | Path

    @property
    def what(self) -> str:
        """What it does, for an error's text."""
        return f"making the candidates in {self.store}"


def is_worth_it(num_jobs: int, device: torch.device) -> bool:
    """Whether so many runs are done sooner side by side: several on a CPU with several threads of torch's, which they
    share out, or where there are fewer threads than runs, take turns on with one each."""
    return device.type == "cpu" and min(num_jobs, torch.get_num_threads()) > 1


def train_side_by_side(jobs: Sequence[Job | CandidatesJob], paths: Paths, on_progress: OnProgress) -> None:
    """Do the jobs on the CPU all at once, each in a process of its own with its share of torch's threads. A run that is
    trained is scored as well.

    `on_progress` is told of each run under its method's name. The first error of one ends the others, which go on from
    their last evaluation when asked again; so does the end of this process, however it comes. InputError, StoreError
    and OSError as `train_run` raises them, RuntimeError where a process ended otherwise: its own words are on stderr.

    To be called in the main thread, of a script under ``if __name__ == "__main__"``: the processes import it.
    """
    num_threads = max(1, torch.get_num_threads() // len(jobs))
    running: dict[Connection, tuple[Job | CandidatesJob, BaseProcess]] = {}
    try:
        for job in jobs:
            reader, writer = CONTEXT.Pipe(duplex=False)
            process: BaseProcess = CONTEXT.Process(target=_do, args=(job, paths, num_threads, writer), daemon=True)
            with _interrupts_ignored():
                process.start()
            writer.close()  # the process has its own: the pipe ends with it
            running[reader] = job, process
        _follow(running, on_progress)
        for _, process in running.values():
            process.join()  # it says that it is done before it has cleaned up
    finally:
        for _, process in running.values():
            process.terminate()
            process.join()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """What is started meanwhile never sees Ctrl-C, which goes to every process of a terminal: its parent ends it."""
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _follow(running: Mapping[Connection, tuple[Job | CandidatesJob, BaseProcess]], on_progress: OnProgress) -> None:
    """Pass on what the processes tell until each has said that it is done; raises the error that one tells."""
    pending = list(running)
    while pending:
        for reader in wait(pending):
            assert isinstance(reader, Connection)
            try:
                message = reader.recv()
            except EOFError:
                job, process = running[reader]
                process.join()
                raise InputError(
                    f"{job.what} ended with exit code {process.exitcode} (-9: killed, for want of memory perhaps); "
                    "what it had to say is above; type the command again to go on"
                ) from None
            if message is None:
                pending.remove(reader)
            elif isinstance(message, InputError | StoreError | OSError | MemoryError):
                raise message
            elif isinstance(message, str):
                console.print(message, soft_wrap=True)
            else:
                on_progress(*message)


def _do(job: Job | CandidatesJob, paths: Paths, num_threads: int, writer: Connection) -> None:
    end_with_parent()
    torch.set_num_threads(num_threads)
    console.quiet = True  # the parent has the display
    try:
        # Not `read_dataset`: the parent has said what the data set lost.
        dataset = open_dataset(paths.data, job.config.split, paths.images_of(job.config.split))
        if isinstance(job, Job):
            _train(job, paths, dataset, writer)
        else:
            size = job.config.model_image_size
            prepare_candidates(paths, dataset, size, job.store, lambda *what: writer.send(what))
        writer.send(None)
    except (InputError, StoreError, OSError, MemoryError) as error:
        writer.send(error)
    except StopRequested:  # by the parent, or with it: its state is saved
        sys.exit(1)


def _train(job: Job, paths: Paths, dataset: ReferDataset, writer: Connection) -> None:
    cpu, tell = torch.device("cpu"), _telling(writer, job.config.method)
    with _quiet(job.log_to), run_loggers(job.log_to, job.folder, paths.runs, say=writer.send) as on_metrics:
        train_run(
            job.config,
            dataset,
            job.folder,
            cpu,
            store=job.store,
            burn_in=job.burn_in,
            on_progress=tell,
            on_metrics=on_metrics,
            say=writer.send,
        )
    evaluate_run(job.folder, paths, cpu, tell, dataset)


@contextmanager
def _quiet(loggers: Sequence[str]) -> Iterator[None]:
    """What loggers print of themselves would go across the parent's display."""
    os.environ.setdefault("WANDB_SILENT", "true")
    with redirect_stdout(io.StringIO()) if loggers else nullcontext():
        yield


def _telling(writer: Connection, method: str) -> OnProgress:
    def tell(what: str, done: int, total: int, note: str = "", /) -> None:
        writer.send((what if what == method else f"{what} of {method}", done, total, note))

    return tell
