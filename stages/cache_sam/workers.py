"""The workers of one torchrun job: who takes which image, and when all are done, through the job's key-value store.

    torchrun --nproc-per-node=8 --no-python semires cache-sam --split refcoco

A round walks over the positions 0 to N - 1 of one list of images, the same in every worker. A shared counter hands
each position to exactly one worker, when it has time for it; the worker counts it as settled once the image is
committed, set aside, or was stored before. When all N are settled the job is done. A worker that dies takes with it
what it had not settled: when no position is left and the living wait, they see that the sum falls short, and walk
another round, in which the candidate store says what is there.

Nothing here depends on when a worker starts or how often. torchrun's store outlives a restart of its workers, who then
go on in the middle of a round; where it does not, the first round begins anew and skips what is stored. Positions that
two workers come to hold, after a death that was none, cost their time and nothing else: of an image in two parts every
reader takes the same one.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch.distributed as dist

from semires.stages.data.errors import InputError
from semires.stages.processes.torchrun import first_line, restart_count, torchrun_job

_Answer = TypeVar("_Answer")
# Seconds between two looks at the store while waiting, and until a silent job is taken for dead: SAM ViT-H takes
# minutes for an image on a CPU.
_PAUSE = 0.1
PATIENCE = 900.0
# How long the end waits for those who have nothing left to do but to leave.
_FAREWELL = 10.0


class WorkerGroup:
    """This process as one of the workers that fill one candidate store; alone, it is a group of one.

    Every method that asks the key-value store raises InputError where it no longer answers.
    """

    def __init__(self, store: dist.Store, rank: int, world_size: int, *, patience: float = PATIENCE) -> None:
        self.rank = rank
        """0 to world_size - 1; rank 0 reports."""
        self.world_size = world_size
        """Number of workers."""
        self._store = dist.PrefixStore("semires/cache-sam", store)
        self._patience = patience
        # torchrun counts the starts of its workers; the farewell of an earlier start is not that of this one.
        self._start = restart_count()

    @classmethod
    def alone(cls) -> "WorkerGroup":
        """A group of this process only."""
        return cls(dist.HashStore(), 0, 1)

    @classmethod
    def join(cls) -> "WorkerGroup":
        """The group that torchrun's environment variables describe, else a group of this process only.

        InputError where they are there in part, or where nobody answers at their address.
        """
        job = torchrun_job()
        return cls.alone() if job is None else cls(*job)

    @property
    def reports(self) -> bool:
        """Whether this worker shows progress and results; the others print warnings only."""
        return self.rank == 0

    def count(self, name: str, number: int = 1) -> int:
        """Add to the shared counter `name`, which begins at 0; returns its new value."""
        return self._ask(lambda: self._store.add(name, number))

    def positions(self, round_number: int, total: int) -> Iterator[int]:
        """Positions of the round that fall to this worker, each handed out when asked for."""
        while (position := self.count(f"{round_number}/next") - 1) < total:
            yield position

    def settle(self, round_number: int, number: int) -> None:
        """Count positions of the round as settled."""
        self.count(f"{round_number}/settled", number)

    def begin(self, round_number: int) -> None:
        """Take back that this worker finished the round: it may be one that was started again."""
        self._ask(lambda: self._store.delete_key(f"{round_number}/finished/{self.rank}"))

    def finish(
        self,
        round_number: int,
        total: int,
        while_waiting: Callable[[], object] = lambda: None,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> bool:
        """Say that this worker has settled all it took, and wait for the others; whether all positions are settled.

        False where some were lost, and another round is due: every worker finished and the sum falls short, or nothing
        has happened for as long as the group's patience. `while_waiting` is called now and then.
        """
        self._ask(lambda: self._store.set(f"{round_number}/finished/{self.rank}", "1"))
        finished = [f"{round_number}/finished/{rank}" for rank in range(self.world_size)]
        last_news, seen = time.monotonic(), (-1, -1)
        while True:
            # In this order: who finished had settled before.
            all_finished = self._ask(lambda: self._store.check(finished))
            news = (self.count(f"{round_number}/settled", 0), self.count("done", 0))
            if news[0] >= total:
                return True
            now = time.monotonic()
            if news != seen:
                last_news, seen = now, news
            if all_finished or now - last_news > self._patience:
                return False
            while_waiting()
            with interruptible():
                time.sleep(_PAUSE)

    def lead(self, interruptible: Callable[[], AbstractContextManager[None]] = nullcontext) -> bool:
        """True in rank 0, at once. In the others False, after rank 0 has called `follow`.

        InputError where it has not within the group's patience since it began, or last said that it is `looking`.
        """
        deadline, looked = time.monotonic() + self._patience, 0
        while self.rank != 0 and self.count("opened", 0) == 0:
            if (look := self.count("looking", 0)) != looked:
                deadline, looked = time.monotonic() + self._patience, look
            if time.monotonic() > deadline:
                raise InputError(f"expected rank 0 to open the store within {self._patience:g} s; look at its output")
            with interruptible():
                time.sleep(_PAUSE)
        return self.rank == 0

    def looking(self) -> None:
        """Let those who wait in `lead` know that rank 0 is at work: it compares the images with the store."""
        self.count("looking")

    def follow(self) -> None:
        """Let those go on who wait in `lead`."""
        if self.rank == 0:
            self.count("opened")

    def leave(self, *, failed: bool = False) -> None:
        """The last call of every worker: nobody ends before rank 0, which calls this after it has reported.

        torchrun stops all workers when the first ends with an error, and rank 0 may be the one that holds the store.
        `failed` of rank 0 is what `has_failed` then says.
        """
        reported, left = f"{self._start}/reported", f"{self._start}/left"
        deadline = time.monotonic() + _FAREWELL
        try:
            if self.rank == 0:
                self.count("failed", int(failed))
                self.count(reported)
            while self.count(reported, 0) == 0 and time.monotonic() < deadline:
                time.sleep(_PAUSE)
            if self.rank != 0:
                self.count(left)
            while self.rank == 0 and self.count(left, 0) < self.world_size - 1 and time.monotonic() < deadline:
                time.sleep(_PAUSE)
        except InputError:  # the store went first: nothing is left to wait for
            return

    def has_failed(self) -> bool:
        """Whether the job was done before this worker started, and ended with images set aside.

        torchrun takes the exit code 1 that this means for a crash, and starts the workers again as often as
        `--max-restarts` says: to look at the same images again would change nothing.
        """
        return self.count("failed", 0) > 0

    def _ask(self, question: Callable[[], _Answer]) -> _Answer:
        try:
            return question()
        except RuntimeError as error:  # all errors of torch's stores
            raise InputError(
                f"expected an answer of the job's key-value store, found: {first_line(error)}; what was finished is "
                "committed: start the job again to go on"
            ) from error
