import dataclasses
import time
from pathlib import Path

import pytest

from semires.pipeline.paths import Paths
from semires.pipeline.planning.devices import GIB, PlanDevice
from semires.pipeline.planning.studies import estimate
from semires.pipeline.planning.studies import plan as study_plan
from semires.pipeline.planning.studies.estimate import PlannedRun
from semires.pipeline.planning.studies.plan import StudyPlan, elapsed, plan_runs
from semires.pipeline.planning.studies.sample import SampleFigures
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.train.run_folder import RunFolder

NANO = train_recipe("refshapes")


def run_of(name: str, burn_in: str | None = None, **changes: object) -> PlannedRun:
    config = dataclasses.replace(NANO, **changes)
    start = None if burn_in is None else Path(burn_in)
    return PlannedRun(label=name[0], config=config, folder=Path(name), burn_in=start, is_finished=False)


@pytest.fixture
def simple(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of a model, one of 10 bytes, 20 trained ones' moments; of the CPU here, a machine."""
    sample = SampleFigures(flops_student=3 * 10**9, flops_forward=10**9, weights=10, moments=20)
    device = PlanDevice(title="a machine", type="cpu", memory=GIB, peaks={"fp32": 1.0}, source="a test")
    monkeypatch.setattr(estimate, "plan_sample", lambda config: sample)
    monkeypatch.setattr(study_plan, "plan_device", lambda name: device)


def planned(tmp_path: Path, runs: list[PlannedRun], **how: object) -> StudyPlan:
    return plan_runs(runs, Paths(data=tmp_path / "data"), None, **how)


@pytest.mark.parametrize(
    ("num_workers", "expected"),
    [
        (1, 19.0),
        # b0 and b1, from 2 on the first that starts from b0, from 5 on the one that starts from b1 ...
        (2, 10.0),
        (3, 9.0),
        (9, 9.0),
    ],
)
def test_elapsed__a_burn_in_before_what_starts_from_it(num_workers: int, expected: float) -> None:
    runs = [run_of("b0"), run_of("b1"), run_of("x0", "b0"), run_of("y0", "b0"), run_of("x1", "b1"), run_of("z", "done")]
    seconds = dict(zip([run.folder for run in runs], [2.0, 5.0, 3.0, 4.0, 4.0, 1.0], strict=True))
    assert elapsed(runs, seconds, num_workers) == expected


def test_elapsed__nothing_left_and_nothing_known() -> None:
    assert elapsed([], {}, 2) == 0
    assert elapsed([run_of("a")], {Path("a"): None}, 2) is None


def test_plan_runs__kinds_and_sums(tmp_path: Path, simple: None) -> None:
    runs = [
        run
        for seed in range(3)
        for run in (
            run_of(f"s{seed}", method="supervised", seed=seed),
            run_of(f"b{seed}", f"s{seed}", method="baseline", seed=seed),
            run_of(f"c{seed}", f"s{seed}", method="semires", seed=seed),
        )
    ]
    runs[0] = dataclasses.replace(runs[0], is_finished=True)
    plan = planned(tmp_path, [*runs, runs[1]], num_workers=2)  # a run that two rows share is one
    assert [(kind.label, kind.num_runs, kind.num_finished, kind.num_burn_ins) for kind in plan.kinds] == [
        ("s", 3, 1, 0),
        ("b", 3, 0, 3),
        ("c", 3, 0, 3),
    ]
    assert (plan.num_runs, plan.num_finished, plan.num_burn_ins, plan.num_starting) == (9, 1, 3, 6)
    supervised, baseline, semires = plan.kinds
    assert supervised.seconds is not None
    assert supervised.remaining_seconds == 2 * supervised.seconds
    assert baseline.seconds == semires.seconds
    assert plan.work_seconds == pytest.approx(sum(kind.remaining_seconds or 0 for kind in plan.kinds))
    assert plan.elapsed_seconds is not None
    assert plan.work_seconds / 2 <= plan.elapsed_seconds < plan.work_seconds
    # 8 runs' weights; two at once with three states of student, teacher and moments, and the weights being written.
    assert plan.disk_afterwards == 8 * 10
    assert plan.disk_at_most == 8 * 10 + 2 * (3 * (10 + 10 + 20) + 10)
    assert any("2 runs side by side share the processor" in note for note in plan.notes)


def test_plan_runs__a_burn_in_that_nobody_named(tmp_path: Path, simple: None) -> None:
    first, done = tmp_path / "first", tmp_path / "done"
    folder = RunFolder(done)
    folder.start(NANO.burn_in(), [1])
    folder.finish({"seconds": 1.0})
    plan = planned(tmp_path, [run_of("a", str(first)), run_of("b", str(first)), run_of("c", str(done))])
    assert [(kind.label, kind.num_runs, kind.num_finished) for kind in plan.kinds] == [
        ("burn-in of refshapes, 0.05", 2, 1),
        ("a", 1, 0),
        ("b", 1, 0),
        ("c", 1, 0),
    ]
    assert (plan.num_burn_ins, plan.num_starting) == (2, 3)


def test_plan_runs__all_finished(tmp_path: Path, simple: None) -> None:
    plan = planned(tmp_path, [dataclasses.replace(run_of("a"), is_finished=True)])
    assert (plan.work_seconds, plan.elapsed_seconds, plan.disk_at_most, plan.disk_afterwards) == (0, 0, 0, 0)
    assert plan.kinds[0].remaining_seconds == 0


def test_plan_runs__a_data_set_of_which_nothing_is_known(tmp_path: Path, simple: None) -> None:
    plan = planned(tmp_path, [run_of("a"), run_of("b", split="grefcoco")])
    assert (plan.work_seconds, plan.elapsed_seconds) == (None, None)
    assert plan.kinds[0].seconds is not None
    assert plan.disk_at_most is not None


def test_plan_runs__a_model_that_cannot_be_planned(
    tmp_path: Path, simple: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> SampleFigures:
        raise InputError("why not")

    monkeypatch.setattr(estimate, "plan_sample", refuse)
    plan = planned(tmp_path, [run_of("a")])
    assert (plan.disk_at_most, plan.disk_afterwards) == (None, None)
    assert plan.notes[-1] == "why not"


def test_plan_runs__finished_runs_that_cannot_be_read(tmp_path: Path, simple: None) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    for name in ("config.json", "result.json"):
        (tmp_path / "runs" / "a" / name).write_text("{")
    plan = planned(tmp_path, [run_of("a")], known_runs=[tmp_path / "runs"])
    assert plan.notes[-1] == "finished runs that cannot be read, and were left out: 1"


def test_plan_runs__table_1_at_full_size_without_data_in_seconds(tmp_path: Path) -> None:
    """The whole command has ten seconds on two cores, of which it takes four or five to import what it needs."""
    runs = []
    for split in ("refcoco", "refcoco+", "refcocog"):
        for share in (0.005, 0.01, 0.02, 0.05):
            for seed in range(3):
                base = dataclasses.replace(train_recipe(split), labeled=share, seed=seed)
                for method in ("supervised", "baseline", "semires", "semires-cc"):
                    config = dataclasses.replace(base.burn_in() if method == "supervised" else base, method=method)
                    folder = tmp_path / split / f"{share:g}" / str(seed)
                    burn_in = None if method == "supervised" else folder / "supervised"
                    label = f"{split} {share:g} {method}"
                    run = PlannedRun(
                        label=label, config=config, folder=folder / method, burn_in=burn_in, is_finished=False
                    )
                    runs.append(run)
    start = time.process_time()
    plan = plan_runs(runs, Paths(data=tmp_path), "rtx3090", num_workers=4)
    assert time.process_time() - start < 5
    assert (plan.num_runs, len(plan.kinds), plan.num_burn_ins) == (144, 48, 36)
    assert plan.elapsed_seconds is not None
    assert plan.work_seconds is not None
    assert plan.elapsed_seconds == pytest.approx(plan.work_seconds / 4, rel=0.05)
