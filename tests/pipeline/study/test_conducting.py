import dataclasses
import json
import os
import shutil
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from semires.cache.reader import CandidateStore
from semires.pipeline.paths import Paths
from semires.pipeline.running import launchers
from semires.pipeline.running.jobs import Job
from semires.pipeline.running.launchers import LaunchOptions
from semires.pipeline.running.launching import Ended
from semires.pipeline.study.cells import study_runs
from semires.pipeline.study.conducting import conduct
from semires.pipeline.study.description import Study
from semires.pipeline.study.folders import run_folder
from semires.stages.data.errors import InputError
from semires.stages.processes.stopping import StopRequested
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.mark.usefixtures("quick_processes")
def test_conduct__runs_of_two_studies_are_trained_once(
    tiny_paths: Paths, tiny_study: Study, capsys: pytest.CaptureFixture[str]
) -> None:
    """The candidates are made first, methods go side by side from one burn-in, and a second call trains nothing."""
    shutil.rmtree(tiny_paths.store("refshapes"))
    runs, seen = study_runs(tiny_study, CPU), list[tuple[str, str]]()
    found = conduct(
        tiny_study,
        runs,
        tiny_paths,
        CPU,
        lambda what, done, total, note="": seen.append((what, note)),
        launch=LaunchOptions(num_workers=2),
        log_to=["tensorboard"],
    )
    assert len(CandidateStore(tiny_paths.store("refshapes"))) == 12
    assert {
        *("runs", "drawing RefShapes", "candidates of refshapes at 96x96: candidate masks"),
        *("SUPERVISED, refshapes 25%, seed 0: supervised", "SEMIRES, refshapes 25%, seed 0: semires"),
    } <= {what for what, _ in seen}
    assert (found.not_measured, len(found.runs)) == ((), 4)
    for run in found.runs:
        scores = json.loads((run.folder / "scores.json").read_text())["by_split"]
        assert found.tables[0].rows[run.row][0].measured == pytest.approx((scores["val"]["oiou"],))
        assert len(list((run.folder / "tensorboard").iterdir())) == 1
        assert not (run.folder / "burn-in").exists()
        assert not (run.folder / "claim.json").exists()
    assert {run.burn_in for run in found.runs} == {None, found.runs[0].folder}

    finished = {path: path.stat().st_mtime_ns for path in tiny_paths.runs.rglob("*") if path.is_file()}
    other = dataclasses.replace(tiny_study, name="other", rows=tiny_study.rows[2:3], against=None)
    capsys.readouterr()
    again = conduct(other, study_runs(other, CPU), tiny_paths, CPU, ignore)
    assert again.tables[0].rows == {"SEMIRES": found.tables[0].rows["SEMIRES"]}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert capsys.readouterr().out == ""


class Recorder:
    """A launcher that finishes runs without training, but for those whose label begins with `broken`."""

    num_workers = 1

    def __init__(self, broken: str) -> None:
        self.broken = broken
        self.under_way: list[Job] = []

    def start(self, job: Job) -> None:
        self.under_way.append(job)

    def ended(self, seconds: float) -> list[Ended]:
        if not self.under_way:
            return []
        job = self.under_way.pop()
        failure = "Input/output error" if job.label.startswith(self.broken) else None
        if failure is None and hasattr(job, "burn_in"):
            folder = RunFolder(job.folder)
            folder.start(job.config, [1])
            folder.finish({"val_oiou": 50.0})
        return [Ended(job=job, failure=failure)]

    def stop(self) -> None:
        pass


@pytest.mark.parametrize(
    ("broken", "trained", "failed"),
    [("SEMIRES-CC", 3, ["SEMIRES-CC"]), ("SUPERVISED", 0, ["SUPERVISED"]), ("nothing", 4, [])],
)
def test_conduct__a_run_that_fails_hides_no_finished_one(
    tiny_paths: Paths,
    tiny_study: Study,
    monkeypatch: pytest.MonkeyPatch,
    broken: str,
    trained: int,
    failed: list[str],
) -> None:
    recorder, scored = Recorder(broken), list[Any]()

    def make_launcher(*arguments: Any) -> Recorder:
        return recorder

    def score(run: Any, *rest: Any) -> Any:
        scored.append(run.row.name)
        raise OSError("not a model")

    monkeypatch.setattr("semires.pipeline.study.conducting.make_launcher", make_launcher)
    monkeypatch.setattr("semires.pipeline.study.conducting._scored", score)
    runs = study_runs(tiny_study, CPU)
    found = conduct(tiny_study, runs, tiny_paths, CPU, ignore)
    assert len(scored) == trained
    assert sum(RunFolder(run_folder(tiny_paths, run.spec)).is_finished for run in runs) == trained
    named = [line for line in found.not_measured if "Input/output error" in line]
    assert [line.split(",")[0] for line in named] == failed
    assert sum("not a model" in line for line in found.not_measured) == trained


def test_conduct__a_batch_that_so_many_gpus_cannot_share(tiny_paths: Paths, tiny_study: Study) -> None:
    """Burn-in went well, and mutual learning failed after it."""
    runs = study_runs(tiny_study, CPU)
    assert runs[0].spec.config.batch_burn_in > 8 > runs[1].spec.config.batch_labeled
    with pytest.raises(InputError, match=r"--gpus-per-run: expected 1 or more, .*found 8 for batches of 4"):
        conduct(tiny_study, runs, tiny_paths, CPU, ignore, launch=LaunchOptions(gpus_per_run=8))


def test_conduct__nothing_is_launched_for_what_cannot_be_trained(
    tiny_paths: Paths, monkeypatch: pytest.MonkeyPatch, write_refer: Callable[..., Any], tiny_study: Study
) -> None:
    monkeypatch.setattr(launchers, "LocalLauncher", None)
    study = dataclasses.replace(tiny_study, splits=("refcocog",), shares={})
    found = conduct(study, study_runs(study, CPU), tiny_paths, CPU, ignore)
    assert (found.tables, found.runs) == ((), ())
    assert found.not_measured[0].startswith("refcocog: missing ")


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_conduct__a_signal_ends_what_is_under_way(
    tiny_paths: Paths, tiny_study: Study, monkeypatch: pytest.MonkeyPatch, signum: int, code: int
) -> None:
    """SIGTERM ended the command without a word, and its runs by their broken pipes."""
    stopped = []

    class Waiting(Recorder):
        def ended(self, seconds: float) -> list[Ended]:
            os.kill(os.getpid(), signum)
            time.sleep(60)
            return []

        def stop(self) -> None:
            stopped.append(len(self.under_way))

    monkeypatch.setattr("semires.pipeline.study.conducting.make_launcher", lambda *rest: Waiting("nothing"))
    before = signal.getsignal(signum)
    with pytest.raises(StopRequested) as caught:
        conduct(tiny_study, study_runs(tiny_study, CPU), tiny_paths, CPU, ignore)
    assert (stopped, caught.value.exit_code) == ([1], code)
    assert signal.getsignal(signum) is before
