"""Jobs in the order of what they need, as many at once as there are workers, together with other commands that do the
same jobs on the same file system: each takes what nobody has claimed, and waits for the rest.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from semires.pipeline.progress import OnProgress, console
from semires.pipeline.running.claims import holder
from semires.pipeline.running.jobs import Job
from semires.pipeline.running.launching import Failure, Launcher

SECONDS_BETWEEN_LOOKS = 2.0


@dataclass(frozen=True, kw_only=True)
class Task:
    """A job and what it has to wait for. is_done: whether nothing is left of it, whoever did it."""

    job: Job
    needs: tuple[Job, ...]
    is_done: Callable[[], bool]


def do_tasks(
    tasks: Sequence[Task], launcher: Launcher, on_progress: OnProgress, *, pause: float = SECONDS_BETWEEN_LOOKS
) -> dict[str, Failure]:
    """Do all tasks; returns what failed, by the job's label. A job whose needs failed is not begun, and not named: what
    it needed is.

    `on_progress` is told how many are done. Leaving it, by an interrupt for instance, ends the jobs under way, which go
    on from their last state when asked again.
    """
    waiting, under_way = list(tasks), dict[str, Task]()
    failed: dict[str, Failure] = {}
    without: set[str] = set()  # failed, or needing what failed
    done: set[str] = set()
    told: set[str] = set()
    shown: tuple[int, int, str] | None = None
    try:
        while waiting or under_way:
            elsewhere: dict[str, str] = {}
            for task in list(waiting):
                label = task.job.label
                if task.is_done():
                    done.add(label)
                    waiting.remove(task)
                elif any(need.label in without for need in task.needs):
                    without.add(label)
                    waiting.remove(task)
                elif len(under_way) < launcher.num_workers and all(need.label in done for need in task.needs):
                    held_by = holder(task.job.folder)
                    if held_by is not None:
                        elsewhere[label] = held_by
                        continue
                    waiting.remove(task)
                    under_way[label] = task
                    launcher.start(task.job)
            for label, held_by in elsewhere.items():
                if label not in told:
                    told.add(label)
                    console.print(f"{label}: {held_by} is at it", soft_wrap=True)
            state = len(done), len(tasks), _note(under_way, elsewhere, failed)
            if state != shown:
                on_progress("runs", *state)
                shown = state
            if not under_way:
                if waiting:
                    time.sleep(pause)  # for others, or for a claim to die
                continue
            for ended in launcher.ended(pause):
                task = under_way.pop(ended.job.label)
                if not ended.was_mine:
                    waiting.append(task)
                elif ended.failure is not None:
                    failed[ended.job.label] = ended.failure
                    without.add(ended.job.label)
                    console.print(f"{ended.job.label}: {ended.failure}", soft_wrap=True)
                else:
                    done.add(ended.job.label)
    finally:
        launcher.stop()
    return failed


def _note(under_way: Mapping[str, Task], elsewhere: Mapping[str, str], failed: Mapping[str, Failure]) -> str:
    parts = [
        (len(under_way), "under way"),
        (len(elsewhere), "done elsewhere"),
        (len(failed), "failed"),
    ]
    return " · ".join(f"{number} {what}" for number, what in parts if number)
