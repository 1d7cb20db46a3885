"""Jobs in the order of what they need, as many at once as there are workers, together with other commands that do the
same jobs on the same file system: each takes what nobody has claimed, and waits for the rest.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from semires.pipeline.progress import OnProgress, console, duration
from semires.pipeline.running.claims import holder
from semires.pipeline.running.jobs import Job, TrainJob
from semires.pipeline.running.launching import Ended, Launcher

SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job and what it has to wait for. is_done: whether nothing is left of it, whoever did it."""

    job: Job
    needs: tuple[Job, ...]
    is_done: Callable[[], bool]


def do_tasks(
    tasks: Sequence[Task], launcher: Launcher, on_progress: OnProgress, *, pause: float = SECONDS_BETWEEN_LOOKS
) -> dict[Job, str]:
    """Do all tasks; returns what failed, and with what. A job whose needs failed is not begun, and not named: what it
    needed is.

    `on_progress` is told how many runs are done. Leaving it, by an interrupt for instance, ends the jobs under way,
    which go on from their last state when asked again.
    """
    schedule = _Schedule(tasks, launcher, on_progress)
    try:
        while not schedule.is_over:
            schedule.begin_what_can_be()
            schedule.show()
            if schedule.is_working:
                for ended in launcher.ended(pause):
                    schedule.end(ended)
            elif not schedule.is_over:
                time.sleep(pause)  # others are at the rest
        schedule.show()
    finally:
        launcher.stop()
    return schedule.failed


class _Schedule:
    """What is done, under way and waiting."""

    def __init__(self, tasks: Sequence[Task], launcher: Launcher, on_progress: OnProgress) -> None:
        self.failed: dict[Job, str] = {}
        self._launcher = launcher
        self._on_progress = on_progress
        self._waiting = list(tasks)
        self._under_way: dict[Job, Task] = {}
        self._began: dict[Job, float] = {}
        self._done: set[Job] = set()
        self._without: set[Job] = set()
        """Failed, or needing what failed."""
        self._elsewhere: dict[Job, str] = {}
        """Who else does it, in words."""
        self._runs = {task.job for task in tasks if isinstance(task.job, TrainJob)}
        self._shown: tuple[int, str] | None = None

    @property
    def is_over(self) -> bool:
        return not self._waiting and not self._under_way

    @property
    def is_working(self) -> bool:
        return bool(self._under_way)

    def begin_what_can_be(self) -> None:
        """Begin all that waits for nothing while there are workers for it."""
        for task in list(self._waiting):
            job = task.job
            if task.is_done():
                self._waiting.remove(task)
                self._done.add(job)
                self._elsewhere.pop(job, None)
            elif self._without.intersection(task.needs):
                self._waiting.remove(task)
                self._without.add(job)
            elif (
                self._done.issuperset(task.needs)
                and not self._is_elsewhere(job)
                and len(self._under_way) < self._launcher.num_workers
            ):
                self._waiting.remove(task)
                self._under_way[job] = task
                self._began[job] = time.monotonic()
                self._launcher.start(job)

    def _is_elsewhere(self, job: Job) -> bool:
        who = holder(job.folder)
        if who is None:
            self._elsewhere.pop(job, None)
            return False
        if self._elsewhere.get(job) != who:
            console.print(f"{job.label}: {who} is at it", soft_wrap=True)
        self._elsewhere[job] = who
        return True

    def end(self, ended: Ended) -> None:
        """A job is no longer under way."""
        job = ended.job
        task = self._under_way.pop(job)
        if not ended.was_mine:
            self._waiting.append(task)
            return
        taken = duration(time.monotonic() - self._began[job])
        if ended.failure is None:
            self._done.add(job)
            console.print(f"{job.label}: done in {taken}", soft_wrap=True)
        else:
            self._without.add(job)
            self.failed[job] = ended.failure
            console.print(f"{job.label}: failed after {taken}: {ended.failure}", soft_wrap=True)

    def show(self) -> None:
        """Tell how many runs are done, where that is new."""
        parts = [
            (len(self._under_way), "under way"),
            (len(self._elsewhere), "done elsewhere"),
            (len(self.failed), "failed"),
        ]
        state = len(self._done & self._runs), " · ".join(f"{number} {what}" for number, what in parts if number)
        if state != self._shown:
            self._on_progress("runs", state[0], len(self._runs), state[1])
            self._shown = state
