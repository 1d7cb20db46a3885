"""Reading batches in processes beside the training: how many, and what goes on in them.

    loader = Loader(samples, num_workers=None, pin_memory=device.type == "cuda")
    for batch in loader.read(plan):
        ...

The processes stay for the next `read`, of the next evaluation for instance.
"""

import gc
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from semires.cache.errors import StoreError
from semires.stages.data.errors import InputError
from semires.stages.train.reading.samples import Batch, RefSamples
from semires.stages.train.reading.sampling import Keys, Plan

_Read = Batch | InputError | StoreError

MAX_WORKERS = 8
# Batches come through shared memory: of 16 samples at 480 with 100 candidates each, two to a worker, 8 workers hold
# 1.1 GB. Containers give 64 MB unless asked for more, and a process that goes beyond is killed.
SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_NEEDED = 1 << 30


def choose_num_workers(samples: RefSamples, *, num_loaders: int = 1) -> int:
    """How many processes to read `samples` in: as many as this machine has cores to spare for it, at most 8.

    0 where the samples are kept in memory, which each process would do for itself; where there is one core; and where
    there is too little shared memory. `LOCAL_WORLD_SIZE`, which torchrun
    sets, is the number of trainings that share the machine's cores, `num_loaders` that of the loaders that are at work
    at once in each.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if samples.keeps or num_cores == 1 or not _has_shared_memory():
        return 0
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, num_cores // num_ranks - 1) // num_loaders)


def _has_shared_memory() -> bool:
    """Where there is no such folder (not on Linux), shared memory is no file system with a size of its own."""
    return not SHARED_MEMORY.is_dir() or shutil.disk_usage(SHARED_MEMORY).free >= SHARED_MEMORY_NEEDED


class Loader:
    """Reads batches of `samples` in `num_workers` processes beside this one, None for `choose_num_workers`.

    The processes are started by the first read, stay for the next, and end with `close` or with the loader. With
    `pin_memory` batches come in page-locked memory, for a CUDA device.
    """

    samples: RefSamples

    def __init__(self, samples: RefSamples, num_workers: int | None = None, *, pin_memory: bool = False) -> None:
        self.samples = samples
        self._num_workers = num_workers
        self._pin_memory = pin_memory
        self._order = _Order()
        self._num_reads = 0
        # torch's loader and its iterator, referred to from here only: where the garbage collector has to end an
        # iterator, it closes the queues first, and each process ends some seconds later.
        self._loader: DataLoader[_Read] | None = None
        self._reading: Iterator[_Read] = iter(())

    @property
    def num_workers(self) -> int:
        """The processes beside this one; none beside a daemonic one, which may start none."""
        if multiprocessing.current_process().daemon:
            return 0
        return choose_num_workers(self.samples) if self._num_workers is None else self._num_workers

    def read(self, plan: Plan) -> Iterator[Batch]:
        """The batches whose keys `plan` holds, in its order; read ahead of time, from this call on, where there are
        processes to do so.

        One read at a time: a new one ends the one before. InputError and StoreError where a sample cannot be read.
        """
        self._order.plan = plan
        self._num_reads += 1
        if self._loader is None:
            self._loader = self._make()
        self._reading = iter(self._loader)
        return self._follow(self._num_reads)

    def close(self) -> None:
        """End the processes, and with them what is read; a new read starts them again."""
        self._num_reads += 1
        self._reading = iter(())
        self._loader = None

    def _make(self) -> "DataLoader[_Read]":
        num_workers = self.num_workers
        if multiprocessing.get_start_method() == "forkserver":  # Python's choice from 3.14 on
            # The server imports what its processes need, and they share it: of their own it would be 300 MB each.
            multiprocessing.set_forkserver_preload(["__main__", __name__])
        return DataLoader(
            _Reader(self.samples),
            sampler=self._order,
            batch_size=None,  # each item is a batch already
            num_workers=num_workers,
            worker_init_fn=_start_worker,
            persistent_workers=num_workers > 0,
            pin_memory=self._pin_memory,
            # A loader draws a seed for its workers. From torch's own generator it would change the dropout of a run
            # that goes on after an interruption, which makes its loaders once more.
            generator=torch.Generator(),
        )

    def _follow(self, number: int) -> Iterator[Batch]:
        while number == self._num_reads:
            found = next(self._reading, None)
            if found is None:
                return
            if not isinstance(found, Batch):
                self.close()
                raise found
            yield found


def load_batches(samples: RefSamples, plan: Plan, num_workers: int | None = None) -> Iterator[Batch]:
    """Read batches once, with a loader that ends with them."""
    return Loader(samples, num_workers).read(plan)


class _Order:
    """What a data loader reads next: it asks for an iterator at the start of each read."""

    def __init__(self) -> None:
        self.plan: Plan = []

    def __iter__(self) -> Iterator[Keys]:
        return iter(self.plan)


class _Reader(Dataset[_Read]):
    """Samples as whole batches. An error that a user can put right is returned: raised in a worker, it would arrive as
    several lines with a traceback."""

    def __init__(self, samples: RefSamples) -> None:
        self.samples = samples

    def __getitem__(self, keys: Keys) -> _Read:
        try:
            return self.samples.batch(keys)
        except (InputError, StoreError) as error:
            return error


def _start_worker(number: int) -> None:
    # The collector writes into every object that it visits: a forked process would copy all memory of its parent.
    gc.freeze()
    _end_with_parent_only()
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, _Reader)
    info.dataset.samples.keeps = False  # each process would keep a copy of its own


def _end_with_parent_only() -> None:
    """Ctrl-C goes to every process of a terminal, and what torchrun and Slurm send to end a training to every process
    of its group: this one ends when its parent says so, which may want a batch yet before it saves its state."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None or not hasattr(signal, "sigwaitinfo"):  # macOS has none
        return

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that are started from now on inherit it
    threading.Thread(target=wait, daemon=True).start()
