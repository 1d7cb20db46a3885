from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.scoring import measuring
from semires.pipeline.scoring.measuring import measure_target
from semires.pipeline.scoring.targets import Target, choose_target
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import measure
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def target(tmp_path: Path, refshapes: ReferDataset) -> Target:
    """A finished run of random weights, on val."""
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(split="refshapes", model="nano", method="supervised", labeled=0.25, precision="fp32")
    folder.start(config, [1])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({})
    return choose_target(folder.path, Paths(), ignore, refshapes, splits=["val"])


@pytest.fixture
def loaders(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int | None, bool]]:
    """Of each measurement, the number of processes that it was given, and whether it kept images in memory."""
    seen: list[tuple[int | None, bool]] = []

    def spying(model: Any, samples: Any, device: Any, *, loader: Any, **options: Any) -> Any:
        seen.append((loader._num_workers, samples.keeps))
        return measure(model, samples, device, **options)

    monkeypatch.setattr(measuring, "measure", spying)
    return seen


def test_measure_target__native_is_measured_where_it_is_asked_for(
    target: Target, loaders: list[tuple[int | None, bool]]
) -> None:
    plain = measure_target(target, CPU, ignore)
    assert plain.by_split["val"].counts.native_unions is None
    native = measure_target(target, CPU, ignore, native=True)
    assert native.by_split["val"].counts.native_unions is not None
    assert len(loaders) == 2
    for asked in (False, True):
        again = measure_target(target, CPU, ignore, native=asked)
        assert again.by_split["val"].counts.native_unions is not None
    assert len(loaders) == 2
    assert native.by_split["val"].counts.unions.tolist() == plain.by_split["val"].counts.unions.tolist()


def test_measure_target__few_are_read_here_and_none_are_kept_in_memory(
    target: Target, loaders: list[tuple[int | None, bool]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    measure_target(target, CPU, ignore)
    (tmp_path / "run" / "counts.npz").unlink()
    monkeypatch.setattr(measuring, "FEW_EXPRESSIONS", 3)
    measure_target(target, CPU, ignore)
    (tmp_path / "run" / "counts.npz").unlink()
    measure_target(target, CPU, ignore, num_workers=0)
    assert loaders == [(0, False), (None, False), (0, False)]


def test_measure_target__counts_expressions_that_are_cut(
    target: Target, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert measure_target(target, CPU, ignore).by_split["val"].num_cut == 0
    (texts,) = {tuple(target.texts("val"))}
    monkeypatch.setattr(Target, "texts", lambda self, split: ["red " * 18, "red " * 19, *texts[2:]])
    (target.run / "counts.npz").unlink()
    assert measure_target(target, CPU, ignore).by_split["val"].num_cut == 1  # 18 words and two marks are 20 tokens


def test_measure_target__after_each_split_what_was_measured_is_kept(
    target: Target, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    both = choose_target(target.run, Paths(), ignore, refshapes, splits=["testA", "val"])

    def stop_at_val(model: Any, samples: Any, device: Any, **options: Any) -> Any:
        if set(samples.ref_ids.tolist()) == {ref.ref_id for ref in refshapes.refs_of("val")}:
            raise KeyboardInterrupt
        return measure(model, samples, device, **options)

    monkeypatch.setattr(measuring, "measure", stop_at_val)
    with pytest.raises(KeyboardInterrupt):
        measure_target(both, CPU, ignore)
    told: set[str] = set()
    monkeypatch.setattr(measuring, "measure", measure)
    assert set(measure_target(both, CPU, lambda what, *rest: told.add(what)).by_split) == {"testA", "val"}
    assert told == {"expressions of val"}


def test_measure_target__test_means_every_test_split_again(
    target: Target, refshapes: ReferDataset, loaders: list[tuple[int | None, bool]], capsys: pytest.CaptureFixture[str]
) -> None:
    both = choose_target(target.run, Paths(), ignore, refshapes, splits=["test"])
    for _ in range(2):
        assert set(measure_target(both, CPU, ignore).by_split) == {"test"}
    assert len(loaders) == 1
    assert capsys.readouterr().out == ""
