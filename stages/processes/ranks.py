"""The processes that train one model together, as torchrun starts them.

    torchrun --nproc-per-node 4 --no-python semires train --split refcoco

A rank is one process. Gradients and batch statistics go through torch.distributed's group, NCCL between GPUs, gloo
between CPUs; so does whatever the hosts have to agree on, always on the CPU and by gloo, so that no GPU is waited for.
"""

import hashlib
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Self, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.processes.torchrun import restart_count, torchrun_job

_T = TypeVar("_T")
# One rank may draw RefShapes or make its candidates while the others wait.
_PATIENCE = timedelta(hours=2)


class SaidElsewhere(InputError):
    """An error that rank 0 raises as well, and says; the other ranks end without a word."""


class Ranks:
    """This process among those that train together; alone, it is rank 0 of one. To be left with `leave`.

    rank: 0 to world_size - 1. world_size: the number of processes.
    """

    def __init__(self, store: dist.Store | None = None, rank: int = 0, world_size: int = 1) -> None:
        self.rank = rank
        self.world_size = world_size
        self._store = store

    @classmethod
    def join(cls, device: torch.device) -> Self:
        """The ranks of torchrun's job, connected for tensors on `device`; outside of one this process alone.

        InputError where torchrun's environment variables do not describe a job that answers.
        """
        job = torchrun_job()
        if job is None:
            return cls()
        store, rank, world_size = job
        if device.type == "cuda":
            torch.cuda.set_device(device)  # else each rank would also take memory of the first GPU
        # The store outlives a restart of the processes: nothing of an earlier start may be taken for an answer.
        store = dist.PrefixStore(f"semires/train/{restart_count()}", store)
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
            store=store,
            rank=rank,
            world_size=world_size,
            timeout=_PATIENCE,
            device_id=device if device.type == "cuda" else None,
        )
        return cls(store, rank, world_size)

    def leave(self) -> None:
        """End the connections; nothing where there are none."""
        if self._store is not None and dist.is_initialized():
            dist.destroy_process_group()

    @property
    def is_main(self) -> bool:
        """Whether this is the rank that writes, shows progress and reports."""
        return self.rank == 0

    @property
    def is_many(self) -> bool:
        """Whether there are other ranks."""
        return self.world_size > 1

    def rows(self, num: int) -> slice:
        """This rank's part of `num` things in a row; the parts differ by one at most, and in order make the whole."""
        return slice(num * self.rank // self.world_size, num * (self.rank + 1) // self.world_size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Add up a tensor over the ranks, in place; the same bits on every rank."""
        if self.is_many:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """The value of every rank, in the order of the ranks, on every rank; values that pickle."""
        if not self.is_many:
            return [value]
        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value)
        return values

    def first(self, action: Callable[[], _T]) -> _T:
        """What rank 0 gets from `action`, which the others do not do; they wait for it.

        An error of rank 0 is raised there, and as `SaidElsewhere` on the others. The result has to pickle.
        """
        if not self.is_many:
            return action()
        outcome: list[Any] = [None, None]
        error: Exception | None = None
        if self.is_main:
            try:
                outcome[0] = action()
            except Exception as raised:
                error, outcome[1] = raised, str(raised)
        dist.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        if error is not None:
            raise error
        if outcome[1] is not None:
            raise SaidElsewhere(outcome[1])
        result: _T = outcome[0]
        return result

    def claims(self, text: str) -> bool:
        """Whether this rank is the first to want to say `text`: what several find wrong is said once.

        Errors that only some ranks meet leave the others in a collective, so this goes by the job's store.
        """
        if self._store is None:
            return True
        try:
            return self._store.add(f"said/{hashlib.sha256(text.encode()).hexdigest()}", 1) == 1
        except RuntimeError:  # the store went first, with the rank that holds it
            return False
