import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.recipes import train_recipe
from semires.pipeline.running import claims
from semires.pipeline.running.jobs import CandidatesJob, Job, TrainJob
from semires.pipeline.running.launching import Ended
from semires.pipeline.running.scheduling import Task, do_tasks

CONFIG = train_recipe("refcoco")
Outcome = bool | str


class Workers:
    """A launcher that does nothing: a job ends, the latest begun first, as it is told."""

    def __init__(self, num_workers: int = 1, outcomes: dict[str, list[Outcome]] | None = None) -> None:
        self.num_workers = num_workers
        self.done: set[Job] = set()
        self.said: list[str] = []
        self.under_way: list[Job] = []
        self.most = 0
        self.is_stopped = False
        self._outcomes = outcomes or {}

    def start(self, job: Job) -> None:
        self.said.append(f"{job.label} begins")
        self.under_way.append(job)
        self.most = max(self.most, len(self.under_way))

    def ended(self, seconds: float) -> list[Ended]:
        job = self.under_way.pop()
        outcomes = self._outcomes.get(job.label, [])
        outcome = outcomes.pop(0) if outcomes else True
        if outcome is True:
            self.done.add(job)
        self.said.append(f"{job.label} ends")
        return [Ended.of(job, outcome)]

    def stop(self) -> None:
        self.is_stopped = True


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., TrainJob]:
    def make_job(label: str, folder: str | None = None) -> TrainJob:
        return TrainJob(label=label, config=CONFIG, folder=tmp_path / (folder or label), burn_in=None)

    return make_job


def tasks_of(workers: Workers, needs: dict[Job, tuple[Job, ...]]) -> list[Task]:
    return [Task(job=job, needs=of_job, is_done=lambda job=job: job in workers.done) for job, of_job in needs.items()]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_do_tasks__what_is_needed_first(make: Callable[..., TrainJob]) -> None:
    """Burn-ins of one name, as ablations of it have them, are several."""
    first, second = make("burn-in", "1"), make("burn-in", "2")
    of_first, of_second = make("a"), make("b")
    workers = Workers()
    told: list[Any] = []
    needs = {of_second: (second,), of_first: (first,), second: (), first: ()}
    assert do_tasks(tasks_of(workers, needs), workers, lambda *what: told.append(what), pause=0.0) == {}
    assert workers.done == set(needs)
    assert workers.said.index("b begins") > workers.said.index("burn-in ends")
    assert next(line for line in workers.said if "ends" in line) == "burn-in ends"
    assert told[0] == ("runs", 0, 4, "1 under way")
    assert told[-1] == ("runs", 4, 4, "")
    assert workers.is_stopped


def test_do_tasks__no_more_than_there_are_workers(make: Callable[..., TrainJob]) -> None:
    workers = Workers(num_workers=3)
    do_tasks(tasks_of(workers, {make(str(number)): () for number in range(7)}), workers, ignore)
    assert workers.most == 3
    assert len(workers.done) == 7


def test_do_tasks__a_failure_costs_what_needs_it(
    make: Callable[..., TrainJob], capsys: pytest.CaptureFixture[str]
) -> None:
    burn_in, needing, needing_that, free = make("[bold]burn-in"), make("a"), make("b"), make("c")
    workers = Workers(outcomes={burn_in.label: ["no [bold]memory"]})
    told: list[Any] = []
    needs = {burn_in: (), needing: (burn_in,), needing_that: (needing,), free: ()}
    found = do_tasks(tasks_of(workers, needs), workers, lambda *what: told.append(what))
    assert found == {burn_in: "no [bold]memory"}
    assert workers.done == {free}
    assert told[-1] == ("runs", 1, 4, "1 failed")
    out = capsys.readouterr().out
    assert "[bold]burn-in: failed after 0 s: no [bold]memory\n" in out
    assert "c: done in 0 s\n" in out


def test_do_tasks__candidates_are_no_runs(make: Callable[..., TrainJob], tmp_path: Path) -> None:
    candidates = CandidatesJob(label="candidates", config=CONFIG, folder=tmp_path / "candidates")
    workers, run = Workers(), make("a")
    told: list[Any] = []
    do_tasks(tasks_of(workers, {candidates: (), run: (candidates,)}), workers, lambda *what: told.append(what))
    assert {what[2] for what in told} == {1}
    assert told[-1] == ("runs", 1, 1, "")
    assert workers.done == {candidates, run}


def claim(job: TrainJob, **changes: Any) -> None:
    """As another process has it."""
    job.folder.mkdir(exist_ok=True)
    content = json.dumps({"token": "theirs", **claims._here(), **changes})
    (job.folder / claims.NAME).write_text(content)


def test_do_tasks__claimed_elsewhere_is_waited_for(
    make: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, needing, ours = make("theirs"), make("needing"), make("ours")
    workers = Workers()
    claim(theirs)
    told: list[Any] = []

    def sleep(seconds: float) -> None:  # nothing else is left to be done
        assert workers.done == {ours}
        workers.done.add(theirs)  # by them
        (theirs.folder / claims.NAME).unlink()

    monkeypatch.setattr(time, "sleep", sleep)
    needs: dict[Job, tuple[Job, ...]] = {theirs: (), needing: (theirs,), ours: ()}
    do_tasks(tasks_of(workers, needs), workers, lambda *what: told.append(what))
    assert workers.said == ["ours begins", "ours ends", "needing begins", "needing ends"]
    assert capsys.readouterr().out.count("theirs: process ") == 1
    assert told[0] == ("runs", 0, 3, "1 under way · 1 done elsewhere")
    assert told[-1] == ("runs", 3, 3, "")


def test_do_tasks__claimed_elsewhere_as_it_began(
    make: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make("a")
    workers = Workers(outcomes={"a": [False]})
    do_tasks(tasks_of(workers, {job: ()}), workers, ignore)
    assert workers.said == ["a begins", "a ends"] * 2


def test_do_tasks__a_claim_that_dies_is_taken_over(
    make: Callable[..., TrainJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    job, workers = make("a"), Workers()
    claim(job)
    monkeypatch.setattr(time, "sleep", lambda seconds: claim(job, started="0"))
    do_tasks(tasks_of(workers, {job: ()}), workers, ignore)
    assert workers.said == ["a begins", "a ends"]


def test_do_tasks__an_interrupt_stops_what_is_under_way(make: Callable[..., TrainJob]) -> None:
    workers = Workers()

    def interrupt(what: str, done: int, total: int, note: str = "") -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        do_tasks(tasks_of(workers, {make("a"): ()}), workers, interrupt)
    assert workers.said == ["a begins"]
    assert workers.is_stopped
