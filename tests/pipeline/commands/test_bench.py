import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semires.cache.errors import StoreError
from semires.pipeline.bench import cache, generate, handout, lavt, predict, step
from semires.pipeline.bench.measures.report import Bench
from semires.pipeline.cli import app
from semires.stages.data.errors import InputError


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[cache.CacheBenchConfig]:
    """Configs that `bench cache` asked for; nothing is measured."""
    configs: list[cache.CacheBenchConfig] = []

    def bench_cache(config: cache.CacheBenchConfig) -> Bench:
        configs.append(config)
        return Bench(
            title="T", machine={"cpu": "some core"}, rows=[{"contestant": "ours", "ms": 1.5}], notes=["a note"]
        )

    monkeypatch.setattr(cache, "bench_cache", bench_cache)
    return configs


def test_bench_cache__prints_and_writes(asked: list[cache.CacheBenchConfig], tmp_path: Path) -> None:
    target = tmp_path / "new" / "cache.json"
    options = ["--images", "3", "--repeats", "2", "--codec", "zstd-3", "--json", str(target)]
    result = CliRunner().invoke(app, ["bench", "cache", *options], catch_exceptions=False)
    assert result.exit_code == 0
    for text in ("ours", "1.5", "cpu some core", "a note", str(target)):
        assert text in result.output.replace("\n", "") or text in result.output
    assert json.loads(target.read_text())["rows"] == [{"contestant": "ours", "ms": 1.5}]
    assert asked == [cache.CacheBenchConfig(num_images=3, repeats=2, codec="zstd-3")]


def test_bench_cache__defaults_are_the_configs(asked: list[cache.CacheBenchConfig]) -> None:
    assert CliRunner().invoke(app, ["bench", "cache"], catch_exceptions=False).exit_code == 0
    assert asked == [cache.CacheBenchConfig()]


@pytest.mark.parametrize("command", ["cache", "match", "generate", "handout", "lavt", "predict", "step"])
def test_bench__a_file_that_cannot_be_written(
    asked: list[cache.CacheBenchConfig], tmp_path: Path, command: str
) -> None:
    """Refused before anything is measured, which takes minutes."""
    (tmp_path / "file").touch()
    for target in (tmp_path, tmp_path / "file" / "x.json"):
        result = CliRunner().invoke(app, ["bench", command, "--json", str(target)])
        assert isinstance(result.exception, InputError)
        assert str(result.exception).startswith("--json: expected a file that can be written, found ")
    assert asked == []


def test_bench_cache__no_codec() -> None:
    result = CliRunner().invoke(app, ["bench", "cache", "--codec", "gzip"])
    assert isinstance(result.exception, StoreError)


def test_bench_generate__options_reach_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs: list[generate.GenerateBenchConfig] = []

    def bench_generate(config: generate.GenerateBenchConfig) -> Bench:
        configs.append(config)
        return Bench(title="T", machine={}, rows=[{"figure": "images/s", "semires, fp32": 2.5}])

    monkeypatch.setattr(generate, "bench_generate", bench_generate)
    options = ["--sam", "vit_b", "--sam-checkpoint", "b.pth", "--images", "photos", "--num-images", "3"]
    options += ["--points-per-side", "8", "--precision", "bf16", "--compile", "--device", "cpu", "--repeats", "2"]
    result = CliRunner().invoke(app, ["bench", "generate", *options, "--json", str(tmp_path / "g.json")])
    assert result.exit_code == 0
    assert "2.5" in result.output
    assert json.loads((tmp_path / "g.json").read_text())["title"] == "T"
    assert CliRunner().invoke(app, ["bench", "generate", "--device", "cpu"]).exit_code == 0
    given = generate.GenerateBenchConfig(
        sam="vit_b",
        checkpoint=Path("b.pth"),
        images=Path("photos"),
        num_images=3,
        points_per_side=8,
        precision="bf16",
        compile=True,
        device=torch.device("cpu"),
        repeats=2,
    )
    assert configs == [given, generate.GenerateBenchConfig()]


def test_bench_handout__options_reach_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[handout.HandoutBenchConfig] = []

    def bench_handout(config: handout.HandoutBenchConfig) -> Bench:
        configs.append(config)
        return Bench(title="T", machine={}, rows=[{"workers": 2, "of linear": 0.97}])

    monkeypatch.setattr(handout, "bench_handout", bench_handout)
    options = ["--workers", "2", "--workers", "8", "--images-per-worker", "3", "--seconds", "0.5"]
    result = CliRunner().invoke(app, ["bench", "handout", *options, "--images-at-once", "4"], catch_exceptions=False)
    assert "0.97" in result.output
    assert CliRunner().invoke(app, ["bench", "handout"], catch_exceptions=False).exit_code == 0
    asked = handout.HandoutBenchConfig(workers=(2, 8), images_per_worker=3, seconds=0.5, images_at_once=4)
    assert configs == [asked, handout.HandoutBenchConfig()]


def test_bench_lavt__options_reach_the_config(monkeypatch: pytest.MonkeyPatch) -> None:
    configs: list[lavt.LavtBenchConfig] = []

    def bench_lavt(config: lavt.LavtBenchConfig) -> Bench:
        configs.append(config)
        return Bench(title="T", machine={}, rows=[{"contestant": "semires", "ms": 3.5}])

    monkeypatch.setattr(lavt, "bench_lavt", bench_lavt)
    cpu = ["--device", "cpu"]
    for options in (
        [],
        ["--quick", "--repeats", "2", "--threads", "2"],
        ["--model", "base"],
        ["--size", "64"],
        ["--model", "small", "--size", "224", "--batch", "3"],
    ):
        assert CliRunner().invoke(app, ["bench", "lavt", *cpu, *options], catch_exceptions=False).exit_code == 0
    assert configs == [
        lavt.LavtBenchConfig(),
        lavt.LavtBenchConfig(cases=lavt.QUICK, repeats=2, threads=2),
        lavt.LavtBenchConfig(cases=(lavt.Case("base", 480, 1),)),
        lavt.LavtBenchConfig(cases=(lavt.Case("nano", 64, 1),)),
        lavt.LavtBenchConfig(cases=(lavt.Case("small", 224, 3),)),
    ]
    result = CliRunner().invoke(app, ["bench", "lavt", "--model", "clipseg"])
    assert str(result.exception) == "--model: expected one of base, tiny, small, large, nano, found 'clipseg'"


def test_bench_predict__options_reach_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs: list[predict.PredictBenchConfig] = []

    def bench_predict(config: predict.PredictBenchConfig) -> Bench:
        configs.append(config)
        return Bench(title="T", machine={}, rows=[{"contestant": "one at a time", "images/s": 61.5}])

    monkeypatch.setattr(predict, "bench_predict", bench_predict)
    cpu = ["bench", "predict", "--device", "cpu"]
    options = ["--model", "m", "--images", "photos", "--num-images", "3", "--expressions", "4", "--batch-size", "5"]
    options += ["--repeats", "2", "--threads", "2", "--json", str(tmp_path / "p.json")]
    for arguments in ([], options, ["--run", "r"]):
        assert CliRunner().invoke(app, [*cpu, *arguments], catch_exceptions=False).exit_code == 0
    assert json.loads((tmp_path / "p.json").read_text())["rows"] == [{"contestant": "one at a time", "images/s": 61.5}]
    assert configs == [
        predict.PredictBenchConfig(),
        predict.PredictBenchConfig(
            model="m",
            images=Path("photos"),
            num_images=3,
            num_expressions=4,
            batch_size=5,
            repeats=2,
            threads=2,
        ),
        predict.PredictBenchConfig(run=Path("r")),
    ]
    result = CliRunner().invoke(app, [*cpu, "--expressions", "0"])
    assert str(result.exception) == "--expressions: expected 1 to 4, found 0"


def test_bench_step__options_reach_the_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    configs: list[step.StepBenchConfig] = []

    def bench_step(config: step.StepBenchConfig) -> Bench:
        configs.append(config)
        return Bench(title="T", machine={}, rows=[{"figure": "samples/s", "semires, fp32": 52.5}])

    monkeypatch.setattr(step, "bench_step", bench_step)
    cpu = ["--device", "cpu"]
    model = ["--model", "base", "--size", "224", "--batch-labeled", "2", "--batch-unlabeled", "1", "--compile"]
    for options in ([], ["--quick", "--threads", "2"], ["--quick", "--repeats", "3", *model]):
        assert CliRunner().invoke(app, ["bench", "step", *cpu, *options], catch_exceptions=False).exit_code == 0
    assert configs == [
        step.StepBenchConfig(),
        step.StepBenchConfig(steps=1, repeats=2, threads=2),
        step.StepBenchConfig(
            model="base", size=224, batch_labeled=2, batch_unlabeled=1, compile=True, steps=1, repeats=3
        ),
    ]
    target = tmp_path / "step.json"
    result = CliRunner().invoke(app, ["bench", "step", *cpu, "--json", str(target)], catch_exceptions=False)
    assert "52.5" in result.output
    assert json.loads(target.read_text())["rows"] == [{"figure": "samples/s", "semires, fp32": 52.5}]
    result = CliRunner().invoke(app, ["bench", "step", "--model", "clipseg"])
    assert str(result.exception) == "--model: expected one of base, tiny, small, large, nano, found 'clipseg'"
