import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.planning.counts import count_samples
from semires.pipeline.planning.devices import DATA_SHEETS, GIB, PlanDevice
from semires.pipeline.planning.plan import make_plan
from semires.pipeline.planning.studies import estimate as module
from semires.pipeline.planning.studies.estimate import Estimator
from semires.pipeline.planning.studies.known_runs import KnownRuns
from semires.pipeline.planning.studies.sample import SampleFigures, plan_sample
from semires.pipeline.recipes import train_recipe
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CPU = PlanDevice(title="a machine", type="cpu", memory=99 * GIB, peaks={"bf16": 2.0, "fp32": 1.0}, source="a test")
NANO = train_recipe("refshapes")
NANO_CC = dataclasses.replace(NANO, method="semires-cc")


def estimator(folder: Path, device: PlanDevice = CPU, **how: Any) -> Estimator:
    known = KnownRuns([folder / "runs"], device, how.get("gpus_per_run", 1))
    return Estimator(Paths(data=folder / "data"), device, known, **how)


@pytest.mark.parametrize("method", ["supervised", "baseline", "semires"])
@pytest.mark.parametrize("has_burn_in", [False, True])
def test_estimate__by_operations_what_a_whole_plan_has(
    tmp_path: Path, method: str, has_burn_in: bool, simple_steps: None, simple_sample: None
) -> None:
    config = dataclasses.replace(NANO, method=method)
    found = estimator(tmp_path).estimate(config, has_burn_in=has_burn_in)
    plan = make_plan(config, count_samples(config, Paths(data=tmp_path)), CPU, has_burn_in=has_burn_in)
    assert plan.seconds is not None
    assert found.seconds == pytest.approx(plan.seconds, rel=1e-9)
    assert found.source == "operations"
    assert (found.disk_at_most, found.disk_afterwards) == (plan.disk.at_most, plan.disk.afterwards)


def test_estimate__by_operations_of_the_model_itself(tmp_path: Path) -> None:
    """A teacher that reads two expressions of a ref computes twice as much."""
    found = estimator(tmp_path).estimate(NANO_CC, has_burn_in=True)
    counts, sample = count_samples(NANO_CC, Paths(data=tmp_path)), plan_sample(NANO_CC)
    assert counts is not None
    assert NANO_CC.group.expressions == 2
    step = 16 * sample.flops_student + 12 * 2 * sample.flops_forward
    evaluations = NANO_CC.num_evaluations * counts.val_expressions * sample.flops_forward
    assert found.seconds == pytest.approx((counts.mutual_steps * step + evaluations) / (0.4 * 2e12))


def test_estimate__runs_on_a_cpu_share_it_and_gpus_share_a_run(tmp_path: Path, simple_sample: None) -> None:
    alone, shared = (estimator(tmp_path, num_workers=num).estimate(NANO, has_burn_in=True).seconds for num in (1, 2))
    assert alone is not None
    assert shared == pytest.approx(2 * alone)
    gpu = dataclasses.replace(CPU, type="cuda", source=DATA_SHEETS)
    one, beside, four = (
        estimator(tmp_path, gpu, **how).estimate(NANO, has_burn_in=True).seconds
        for how in ({}, {"num_workers": 2}, {"gpus_per_run": 4})
    )
    assert one == beside == alone
    assert four == pytest.approx(alone / 4)
    with pytest.raises(InputError, match=r"--gpus-per-run: expected 1 or more, .* found 5 for batches of 4 \+ 12"):
        estimator(tmp_path, gpu, gpus_per_run=5).estimate(NANO, has_burn_in=True)


def test_estimate__by_finished_runs_each_phase_of_its_own(tmp_path: Path, simple_sample: None) -> None:
    operations = estimator(tmp_path).estimate(NANO, has_burn_in=True)
    burn_in = estimator(tmp_path).estimate(NANO.burn_in(), has_burn_in=False)
    for seed, seconds in ((0, 100.0), (1, 300.0), (2, 200.0)):
        folder = RunFolder(tmp_path / "runs" / str(seed))
        folder.start(dataclasses.replace(NANO, seed=seed, precision="bf16"), [1])
        folder.finish({"seconds": seconds})
    found = estimator(tmp_path).estimate(dataclasses.replace(NANO, seed=7), has_burn_in=True)
    assert (found.seconds, found.source) == (200.0, "3 finished runs")
    assert (found.disk_at_most, found.disk_afterwards) == (operations.disk_at_most, operations.disk_afterwards)
    assert burn_in.seconds is not None
    whole = estimator(tmp_path).estimate(NANO, has_burn_in=False)
    assert (whole.seconds, whole.source) == (200.0 + burn_in.seconds, "operations; 3 finished runs")


def test_estimate__what_is_not_known(tmp_path: Path, simple_sample: None, monkeypatch: pytest.MonkeyPatch) -> None:
    found = estimator(tmp_path).estimate(dataclasses.replace(NANO, split="grefcoco"), has_burn_in=True)
    assert found.seconds is None
    assert "no counts of it are known" in found.source
    assert found.disk_afterwards is not None

    def refuse(config: TrainConfig) -> SampleFigures:
        raise InputError("--plan: it looks at values")

    monkeypatch.setattr(module, "plan_sample", refuse)
    refused = estimator(tmp_path)
    found = refused.estimate(NANO, has_burn_in=True)
    assert (found.seconds, found.source) == (None, "nano cannot be planned")
    assert (found.disk_at_most, found.disk_afterwards) == (None, None)
    assert refused.problems == ["--plan: it looks at values"]


def test_estimate__each_model_and_each_data_set_once(
    tmp_path: Path, refshapes_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def sample(config: TrainConfig) -> SampleFigures:
        asked.append(config.model)
        return SampleFigures(flops_student=3, flops_forward=1, weights=4, moments=8)

    def read(paths: Paths, split: str) -> Any:
        asked.append(split)
        return read_dataset(paths, split)

    read_dataset = module.read_dataset
    monkeypatch.setattr(module, "plan_sample", sample)
    monkeypatch.setattr(module, "read_dataset", read)
    of_here = Estimator(Paths(data=refshapes_root), CPU, KnownRuns([], CPU, 1))
    config = dataclasses.replace(NANO, labeled=0.5, batch_burn_in=1)
    for seed in range(3):
        for method in ("supervised", "baseline", "semires", "semires-cc"):
            for share in (0.25, 0.5):
                run = dataclasses.replace(config, method=method, seed=seed, labeled=share)
                assert of_here.estimate(run, has_burn_in=method != "supervised").seconds is not None
    assert asked == ["nano", "refshapes"]


def test_estimate__threads_of_the_machine(tmp_path: Path, simple_sample: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    asked: list[int] = []
    monkeypatch.setattr(KnownRuns, "time_of", lambda self, kind, num_threads: asked.append(num_threads))
    for num_workers in (1, 2, 8):
        estimator(tmp_path, num_workers=num_workers).estimate(NANO, has_burn_in=True)
    assert asked == [2, 1, 1]
