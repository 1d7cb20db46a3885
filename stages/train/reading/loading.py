"""Reading batches in processes beside the training: how many, and what goes on in them.

    loader = Loader(samples, num_workers=None, pin_memory=device.type == "cuda")
    for batch in loader.read(plan):
        ...

The processes stay for the next `read`, of the next evaluation for instance. Large batches come through shared memory
while half of it stays free, all others through pipes, which takes one copy more: containers give 64 MB of it, others
use it too, and torch's own way of sharing waits for ever for a batch that found no room.
"""

import gc
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, get_worker_info

from semires.cache.errors import StoreError
from semires.stages.data.errors import InputError
from semires.stages.train.reading.samples import Batch, RefSamples
from semires.stages.train.reading.sampling import Keys, Plan

# What may go wrong with a sample and is said in one line.
_ERRORS = (InputError, StoreError, OSError, MemoryError)
_Error = InputError | StoreError | OSError | MemoryError

MAX_WORKERS = 8
# Batches of fewer bytes go through pipes anyway: to share a tensor, parent and worker shake hands. Of 16 samples at 96
# pixels, 590 KB, that is 3.3 ms of the parent's time for all tensors together, through a pipe 1.0.
SMALL = 1 << 20
# Not on every system: elsewhere shared memory is no file system with a size of its own.
SHARED_MEMORY = Path("/dev/shm")


def choose_num_workers(samples: RefSamples, *, num_loaders: int = 1) -> int:
    """How many processes to read `samples` in: as many as this machine has cores to spare for it, at most 8.

    0 where the samples are kept in memory, which each process would do for itself, and where there is one core.
    `LOCAL_WORLD_SIZE`, which torchrun sets, is the number of trainings that share the machine's cores, `num_loaders`
    that of the loaders that are at work at once in each.
    """
    num_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if samples.keeps or num_cores == 1:
        return 0
    num_ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(1, min(MAX_WORKERS, num_cores // num_ranks - 1) // num_loaders)


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

        One read at a time: a new one ends the one before. InputError, StoreError, OSError and MemoryError where a
        sample cannot be read, InputError where the processes cannot be started or have died.
        """
        self._order.plan = plan
        self._num_reads += 1
        if self._loader is None:
            self._loader = self._make()
        try:
            self._reading = iter(self._loader)
        except RuntimeError as error:
            self.close()
            if "shared memory" not in str(error):
                raise
            raise InputError(
                f"expected room in {SHARED_MEMORY} for the annotations, which the processes share, found it full "
                f"({' '.join(str(error).split())[:160]}): give the container more (docker run --shm-size 1g), or "
                "--num-workers 0"
            ) from error
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
            try:
                found = next(self._reading, None)
            except RuntimeError as error:
                if not str(error).startswith("DataLoader worker (pid"):
                    raise
                self.close()
                raise InputError(
                    f"expected {self.num_workers} processes that read images, found one of them dead "
                    f"({' '.join(str(error).split())[:160]}): memory may be short, give a smaller --num-workers"
                ) from error
            if found is None:
                return
            if isinstance(found, _ERRORS):
                self.close()
                raise found
            yield found.batch() if isinstance(found, _Piped) else found


def load_batches(samples: RefSamples, plan: Plan, num_workers: int | None = None) -> Iterator[Batch]:
    """Read batches once, with a loader that ends with them."""
    return Loader(samples, num_workers).read(plan)


class _Order:
    """What a data loader reads next: it asks for an iterator at the start of each read."""

    def __init__(self) -> None:
        self.plan: Plan = []

    def __iter__(self) -> Iterator[Keys]:
        return iter(self.plan)


@dataclass(frozen=True)
class _Piped:
    """A batch on its way through a pipe: what torch finds in a tensor, it puts into shared memory."""

    arrays: dict[str, NDArray[Any]]

    def batch(self) -> Batch:
        tensors: dict[str, Any] = {name: torch.from_numpy(array) for name, array in self.arrays.items()}
        return Batch(**tensors)

    def pin_memory(self) -> Batch:
        return self.batch().pin_memory()


_Read = Batch | _Piped | _Error


class _Reader(Dataset[_Read]):
    """Samples as whole batches. An error that a user can put right is returned: raised in a worker, it would arrive as
    several lines with a traceback."""

    def __init__(self, samples: RefSamples) -> None:
        self.samples = samples

    def __getitem__(self, keys: Keys) -> _Read:
        try:
            batch = self.samples.batch(keys)
            return batch if get_worker_info() is None else _to_send(batch)
        except _ERRORS as error:
            return error


def _to_send(batch: Batch) -> Batch | _Piped:
    """A worker's batch as it is to go to its parent.

    It is shared here, where an error can be seen: torch does it in a thread, which drops the batch.
    """
    tensors = {name: value for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    num_bytes = sum(tensor.nbytes for tensor in tensors.values())
    if num_bytes < SMALL or not _has_room(num_bytes):
        return _Piped({name: tensor.numpy() for name, tensor in tensors.items()})
    try:
        for tensor in tensors.values():
            tensor.share_memory_()
    except RuntimeError:  # other processes were quicker
        return _Piped({name: tensor.numpy().copy() for name, tensor in tensors.items()})
    return batch


def _has_room(num_bytes: int) -> bool:
    """Whether half of the shared memory stays free with so much more in it."""
    if not SHARED_MEMORY.is_dir():
        return True
    usage = shutil.disk_usage(SHARED_MEMORY)
    return usage.free - num_bytes >= usage.total / 2


def _start_worker(number: int) -> None:
    # The collector writes into every object that it visits: a forked process would copy all memory of its parent.
    gc.freeze()
    _end_with_parent_only()
    info = get_worker_info()
    assert info is not None
    assert isinstance(info.dataset, _Reader)
    info.dataset.samples.keeps = False  # each process would keep a copy of its own


def _end_with_parent_only() -> None:
    """Ctrl-C and a closed terminal reach every process of it, what torchrun and Slurm send to end a training every
    process of its group: this one ends when its parent says so, which may want a batch before it saves its state."""
    for signum in {signal.SIGINT, getattr(signal, "SIGHUP", signal.SIGINT)}:  # Windows has one of them
        signal.signal(signum, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent.pid:
            pass
        os._exit(0)

    if hasattr(signal, "sigwaitinfo"):  # macOS has none
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})  # threads that are started from now on inherit it
        threading.Thread(target=wait, daemon=True).start()

    def end_at_once() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    # torch's own ending waits for the batches on their way, which nobody takes where the parent was killed.
    threading.Thread(target=end_at_once, daemon=True).start()
