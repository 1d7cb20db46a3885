import dataclasses
from collections.abc import Callable

import pytest
import torch

from semires.pipeline.bench import step as bench
from semires.pipeline.bench.contestants import steps
from semires.pipeline.bench.contestants.plain_step import CLEAN_UP
from semires.pipeline.bench.contestants.steps import PLAIN
from semires.pipeline.bench.inputs import step_data
from semires.pipeline.bench.step import StepBenchConfig, bench_step
from semires.stages.train.engine.precision import resolve_precision
from semires.stages.train.models.lavt.config import LAVT_SIZES, LavtConfig
from semires.stages.train.step import PHASES

FAST = resolve_precision("auto", torch.device("cpu"))


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tiny_lavt: LavtConfig) -> None:
    monkeypatch.setitem(LAVT_SIZES, "tiny", tiny_lavt)
    monkeypatch.setattr(step_data, "NUM_PHOTOGRAPHS", 4)
    monkeypatch.setattr(step_data, "NUM_CANDIDATES", 4)
    monkeypatch.setattr(bench, "PEAK_SIDES", {"cpu": 64})
    monkeypatch.setattr(steps, "choose_num_workers", lambda *_, **__: 0)


def test_bench_step__a_column_for_each_contestant() -> None:
    config = StepBenchConfig(model="tiny", size=40, batch_labeled=2, batch_unlabeled=1, repeats=1, steps=1)
    found = bench_step(config)
    names = [PLAIN, "semires, fp32", *([f"semires, {FAST}"] if FAST != "fp32" else [])]
    assert list(found.rows[0]) == ["figure", *names]
    assert "LAVT-tiny, 2 labeled + 1 unlabeled samples at 40x40" in found.title
    figures = {str(row["figure"]): row for row in found.rows}
    for name in names:
        for figure in ("samples/s", f"ratio to {PLAIN}", "step, ms", "EMA alone, ms", "GFLOP", "at peak, ms"):
            value = figures[figure][name]
            assert isinstance(value, float)
            assert value > 0
        phases = ["load", *PHASES] if name != PLAIN else ["load", *PHASES[1:], CLEAN_UP]
        assert all(isinstance(figures[f"{phase}, ms"][name], float) for phase in phases)
    assert figures["views, ms"][PLAIN] is figures[f"{CLEAN_UP}, ms"][names[-1]] is None
    assert figures[f"ratio to {PLAIN}"][PLAIN] == 1
    assert figures["GFLOP"][names[1]] < figures["GFLOP"][PLAIN]  # type: ignore[operator]
    assert "median of 1 rounds in turns, 1 steps a turn, on cpu" in found.notes[0]
    assert "4 candidates an image" in found.notes[0]


def test_train_config__nano_has_its_recipe() -> None:
    nano = StepBenchConfig().train_config()
    assert (nano.model, nano.batch_labeled, nano.batch_unlabeled, nano.model_image_size) == ("nano", 4, 12, 96)
    base = StepBenchConfig(model="base", batch_unlabeled=2).train_config()
    assert (base.split, base.batch_labeled, base.batch_unlabeled, base.model_image_size) == ("refcoco", 3, 2, 480)
    assert {config.precision for config in (nano, base)} == {"fp32"}
    assert base == dataclasses.replace(base, method="semires")


def test_settings_of_ours__compiled_in_the_fast_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "resolve_precision", lambda *_: "bf16")
    config = StepBenchConfig(compile=True)
    found = bench._settings_of_ours(config, config.train_config())
    assert {name: (each.precision, each.compile) for name, each in found.items()} == {
        "semires, fp32": ("fp32", False),
        "semires, bf16": ("bf16", False),
        "semires, bf16, compiled": ("bf16", True),
    }


def test_true_float32__only_inside() -> None:
    before = torch.get_float32_matmul_precision()
    inside: Callable[[], str] = torch.get_float32_matmul_precision
    torch.set_float32_matmul_precision("high")
    try:
        with steps.true_float32():
            assert inside() == "highest"
        assert inside() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
