import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline import scores as scores_module
from semires.pipeline.paths import Paths
from semires.pipeline.scores import evaluate_run, pixel_counts
from semires.stages.data.errors import InputError
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import evaluate
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run of random weights that is not finished yet."""
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(split="refshapes", model="nano", method="baseline", labeled=0.25)
    folder.start(config, [1])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    return folder


@pytest.fixture
def paths(refshapes_root: Path, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(scores_module, "load_dataset", lambda paths, split, on_progress: refshapes)
    return Paths(data=refshapes_root)


def test_evaluate_run__every_evaluation_split(run: RunFolder, paths: Paths, refshapes: ReferDataset) -> None:
    seen: set[str] = set()
    found = evaluate_run(run.path, paths, CPU, lambda what, *rest: seen.add(what))
    assert (found.split, found.method, found.labeled) == ("refshapes", "baseline", 0.25)
    assert list(found.by_split) == ["val", "testA", "testB"]
    assert seen == {f"expressions of {name}" for name in found.by_split}
    _, model = run.load_model()
    for name, values in found.by_split.items():
        expected = evaluate(
            model, RefSamples(refshapes, refshapes.refs_of(name), model.tokenizer, model.image_size), CPU
        )
        assert values["oiou"] == expected.oiou
        assert values["num_samples"] == expected.num_samples
        assert list(values["precision"]) == ["0.5", "0.6", "0.7", "0.8", "0.9"]
        assert list(values["precision"].values()) == list(expected.precision.values())


@pytest.mark.parametrize("eval_text", ["raw", "sent"])
def test_evaluate_run__reads_the_runs_eval_text(
    tmp_path: Path, run: RunFolder, paths: Paths, monkeypatch: pytest.MonkeyPatch, eval_text: Any
) -> None:
    config = dataclasses.replace(run.read_config(), text="sent" if eval_text == "raw" else "raw", eval_text=eval_text)
    (run.path / "config.json").write_text(json.dumps(config.to_dict()))
    read: list[str] = []
    monkeypatch.setattr(
        scores_module, "RefSamples", lambda *rest, text: read.append(text) or RefSamples(*rest, text=text)
    )
    evaluate_run(run.path, paths, CPU, ignore)
    assert read == [eval_text] * 3


def test_evaluate_run__unfinished_is_measured_anew(run: RunFolder, paths: Paths) -> None:
    evaluate_run(run.path, paths, CPU, ignore)
    assert not (run.path / "scores.json").exists()


def test_evaluate_run__finished_is_measured_once(run: RunFolder, paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    run.finish({"val_oiou": 1.0})
    first = evaluate_run(run.path, paths, CPU, ignore)

    def evaluate_again(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("measured twice")

    monkeypatch.setattr(scores_module, "evaluate", evaluate_again)
    assert evaluate_run(run.path, paths, CPU, ignore) == first


def test_evaluate_run__other_targets_are_measured_anew(
    run: RunFolder, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scores from before targets were PIL's nearest neighbour have no rule on record."""
    run.finish({"val_oiou": 1.0})
    measured = evaluate_run(run.path, paths, CPU, ignore)
    file = run.path / "scores.json"
    old = json.loads(file.read_text())
    del old["targets"]
    old["by_split"]["val"]["oiou"] = 99.0
    file.write_text(json.dumps(old))
    assert evaluate_run(run.path, paths, CPU, ignore) == measured
    assert "targets were resized by another rule, measured anew" in " ".join(capsys.readouterr().out.split())
    assert json.loads(file.read_text())["targets"] == "pil-nearest"


@pytest.mark.parametrize("text", ["{", "[1]", '{"oiou": 3}', "null"])
def test_evaluate_run__damaged_scores_named(run: RunFolder, paths: Paths, text: str) -> None:
    run.finish({"val_oiou": 1.0})
    (run.path / "scores.json").write_text(text)
    with pytest.raises(InputError, match=r"scores\.json"):
        evaluate_run(run.path, paths, CPU, ignore)


def test_evaluate_run__no_run(tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(InputError, match=r"found no .*nowhere"):
        evaluate_run(tmp_path / "nowhere", paths, CPU, ignore)


def test_scores_json__is_what_was_returned(run: RunFolder, paths: Paths) -> None:
    run.finish({"val_oiou": 1.0})
    found = evaluate_run(run.path, paths, CPU, ignore)
    content = json.loads((run.path / "scores.json").read_text())
    assert content["by_split"] == found.by_split
    assert content["dropped_refs"] == found.dropped_refs == 0


def test_evaluate_run__scores_know_how_many_refs_were_dropped(
    run: RunFolder, paths: Paths, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refshapes, "problems", ReferProblems(no_image_file=(7, 9)))
    run.finish({"val_oiou": 1.0})
    assert evaluate_run(run.path, paths, CPU, ignore).dropped_refs == 2
    content = json.loads((run.path / "scores.json").read_text())
    assert content.pop("dropped_refs") == 2
    # Scores from before they were counted are taken as they are.
    (run.path / "scores.json").write_text(json.dumps(content))
    assert evaluate_run(run.path, paths, CPU, ignore).dropped_refs is None


def test_pixel_counts__of_every_expression_give_the_scores(
    run: RunFolder, paths: Paths, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.finish({})
    scores = evaluate_run(run.path, paths, CPU, ignore)
    (run.path / "counts.npz").unlink()  # as of a run that was scored before there were any
    counts = pixel_counts(run.path, paths, CPU, ignore)
    assert sorted(counts) == sorted(scores.by_split)
    for name, of_split in counts.items():
        refs = refshapes.refs_of(name)
        assert of_split.image_ids.tolist() == [ref.image_id for ref in refs for _ in ref.expressions]
        oiou = 100 * of_split.intersections.sum() / of_split.unions.sum()
        assert oiou == pytest.approx(scores.by_split[name]["oiou"])
    monkeypatch.setattr(scores_module, "evaluate", None)  # they are kept
    again = pixel_counts(run.path, paths, CPU, ignore)
    assert {name: of_split.unions.tolist() for name, of_split in again.items()} == {
        name: of_split.unions.tolist() for name, of_split in counts.items()
    }


def test_pixel_counts__unfinished_or_damaged(run: RunFolder, paths: Paths) -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        pixel_counts(run.path, paths, CPU, ignore)
    run.finish({})
    for content in (b"PK no archive", b""):
        (run.path / "counts.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"counts\.npz: remove it"):
            pixel_counts(run.path, paths, CPU, ignore)
