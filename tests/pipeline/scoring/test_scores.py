import copy
import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.scoring import measuring, scores, targets
from semires.pipeline.scoring.scores import RunScores, evaluate_run, kept_scores, pixel_counts
from semires.pipeline.scoring.split_scores import split_scores
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
    config = TrainConfig(split="refshapes", model="nano", method="baseline", labeled=0.25, precision="fp32")
    folder.start(config, [1])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    return folder


@pytest.fixture
def paths(refshapes_root: Path, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setattr(targets, "load_dataset", lambda paths, split, on_progress: refshapes)
    return Paths(data=refshapes_root)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The splits that are measured from now on, not taken from what is kept."""
    seen: list[str] = []
    measure = measuring._measure_split

    def measure_and_tell(model: Any, target: Any, split: str, *rest: Any) -> Any:
        seen.append(split)
        return measure(model, target, split, *rest)

    monkeypatch.setattr(measuring, "_measure_split", measure_and_tell)
    return seen


def test_evaluate_run__every_evaluation_split(run: RunFolder, paths: Paths, refshapes: ReferDataset) -> None:
    seen: set[str] = set()
    found = evaluate_run(run.path, paths, CPU, lambda what, *rest: seen.add(what))
    assert (found.split, found.trained_on, found.method, found.labeled) == ("refshapes", "refshapes", "baseline", 0.25)
    assert list(found.by_split) == ["val", "testA", "testB"]
    assert seen == {f"expressions of {name}" for name in found.by_split}
    _, model = run.load_model()
    for name, values in found.by_split.items():
        samples = RefSamples(refshapes, refshapes.refs_of(name), model.tokenizer, model.image_size)
        expected = evaluate(model, samples, CPU)
        assert values["oiou"] == expected.oiou
        assert values["num_samples"] == expected.num_samples
        assert list(values["precision"]) == ["0.5", "0.6", "0.7", "0.8", "0.9"]
        assert list(values["precision"].values()) == list(expected.precision.values())
        low, high = values["intervals"]["oiou"]
        assert low <= values["oiou"] <= high
        lengths = [values["subsets"].get(f"{words} words", {"num_samples": 0}) for words in ("1-2", "3-5", "6+")]
        assert sum(of_length["num_samples"] for of_length in lengths) == expected.num_samples
        assert "native" not in values


@pytest.mark.parametrize("eval_text", ["raw", "sent"])
def test_evaluate_run__reads_the_runs_eval_text(
    run: RunFolder, paths: Paths, monkeypatch: pytest.MonkeyPatch, eval_text: Any
) -> None:
    config = dataclasses.replace(run.read_config(), text="sent" if eval_text == "raw" else "raw", eval_text=eval_text)
    (run.path / "config.json").write_text(json.dumps(config.to_dict()))
    read: list[str] = []
    monkeypatch.setattr(measuring, "RefSamples", lambda *rest, text: read.append(text) or RefSamples(*rest, text=text))
    assert evaluate_run(run.path, paths, CPU, ignore).text == eval_text
    assert read == [eval_text] * 3


def test_evaluate_run__unfinished_is_measured_anew(run: RunFolder, paths: Paths, measured: list[str]) -> None:
    for _ in range(2):
        evaluate_run(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"] * 2
    assert not (run.path / "scores.json").exists()


def test_evaluate_run__finished_is_measured_once(run: RunFolder, paths: Paths, measured: list[str]) -> None:
    run.finish({"val_oiou": 1.0})
    first = evaluate_run(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"]
    assert evaluate_run(run.path, paths, CPU, ignore) == first
    assert measured == ["val", "testA", "testB"]


def test_evaluate_run__what_is_written_is_computed_once_and_anew_where_it_is_not_of_the_counts(
    run: RunFolder, paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.finish({"val_oiou": 1.0})
    first = evaluate_run(run.path, paths, CPU, ignore)
    computed: list[int] = []
    monkeypatch.setattr(scores, "split_scores", lambda *given: computed.append(1) or split_scores(*given))
    assert evaluate_run(run.path, paths, CPU, ignore) == first
    assert kept_scores(run.path) == first
    assert computed == []
    path = run.path / "scores.json"
    whole = json.loads(path.read_text(encoding="utf-8"))
    for change in (
        {"targets": "another rule"},
        {"dropped_refs": 1},
        {"by_split": {name: values for name, values in whole["by_split"].items() if name != "testB"}},
        {"by_split": whole["by_split"] | {"val": whole["by_split"]["val"] | {"oiou": 99.0}}},
        {"by_split": whole["by_split"] | {"val": whole["by_split"]["val"] | {"subsets": {}}}},
        {"by_split": whole["by_split"] | {"val": whole["by_split"]["val"] | {"data": {}}}},
    ):
        path.write_text(json.dumps(whole | change), encoding="utf-8")
        computed.clear()
        assert evaluate_run(run.path, paths, CPU, ignore) == first
        assert computed == [1, 1, 1]
        assert json.loads(path.read_text(encoding="utf-8")) == whole


def test_kept_scores__none_of_other_weights_and_of_what_cannot_be_read(run: RunFolder, paths: Paths) -> None:
    assert kept_scores(run.path) is None
    run.finish({"val_oiou": 1.0})
    evaluate_run(run.path, paths, CPU, ignore)
    assert kept_scores(run.path) is not None
    (run.path / "best.safetensors").write_bytes(b"others")
    assert kept_scores(run.path) is None
    (run.path / "scores.json").write_text("[]", encoding="utf-8")
    assert kept_scores(run.path) is None


def test_evaluate_run__not_without_its_data(run: RunFolder, refshapes: ReferDataset, tmp_path: Path) -> None:
    """Scores were kept, and printed for data that nobody has seen again."""
    config = dataclasses.replace(run.read_config(), split="refcoco")
    (run.path / "config.json").write_text(json.dumps(config.to_dict()))
    run.finish({"val_oiou": 1.0})
    there = copy.copy(refshapes)
    there.spec = dataclasses.replace(refshapes.spec, name="refcoco")
    evaluate_run(run.path, Paths(), CPU, ignore, there)
    with pytest.raises(InputError, match=r"no data for refcoco: expected .*nowhere"):
        evaluate_run(run.path, Paths(data=tmp_path / "nowhere"), CPU, ignore)


def change_data(dataset: ReferDataset, change: str) -> ReferDataset:
    """Another data set of the same names, whose val is not the same."""
    folder = dataset.image_folder.parent.parent
    spec_folder = folder / dataset.spec.folder
    val = dataset.refs_of("val")[0]
    if change == "image":
        path = dataset.image_path(val.image_id)
        path.write_bytes(path.read_bytes() + b"\0")
    elif change == "mask":
        path = spec_folder / "instances.json"
        content = json.loads(path.read_text())
        for annotation in content["annotations"]:
            if annotation["id"] == val.ann_id:
                annotation["segmentation"] = [[1, 1, 9, 1, 9, 9]]
        path.write_text(json.dumps(content))
    return ReferDataset.load(folder, dataset.spec.name)


@pytest.mark.parametrize("change", ["image", "mask"])
def test_evaluate_run__of_other_data_is_measured_anew(
    run: RunFolder,
    refshapes_root: Path,
    tmp_path: Path,
    measured: list[str],
    capsys: pytest.CaptureFixture[str],
    change: str,
) -> None:
    shutil.copytree(refshapes_root, tmp_path / "data")
    dataset = ReferDataset.load(tmp_path / "data", "refshapes")
    run.finish({"val_oiou": 1.0})
    paths = Paths(data=tmp_path / "data")
    before = evaluate_run(run.path, paths, CPU, ignore, dataset)
    changed = change_data(dataset, change)
    measured.clear()
    after = evaluate_run(run.path, paths, CPU, ignore, changed)
    assert measured == ["val"]  # the others are the same
    assert "val was measured with other data: not used" in " ".join(capsys.readouterr().out.split())
    fingerprints = [scores.by_split["val"]["data"]["content_sha256"] for scores in (before, after)]
    assert fingerprints[0] != fingerprints[1]
    assert before.by_split["testA"] == after.by_split["testA"]
    assert json.loads((run.path / "scores.json").read_text())["by_split"] == after.by_split


@pytest.mark.parametrize("name", ["weights_sha256", "text", "precision"])
def test_evaluate_run__with_other_settings_or_weights_is_measured_anew(
    run: RunFolder, paths: Paths, measured: list[str], name: str
) -> None:
    run.finish({"val_oiou": 1.0})
    before = evaluate_run(run.path, paths, CPU, ignore)
    if name == "weights_sha256":
        torch.manual_seed(1)
        run.save_best(run.read_config().build_model(pretrained=False).state_dict())
    else:
        change = {"eval_text": "sent"} if name == "text" else {"precision": "bf16"}
        (run.path / "config.json").write_text(
            json.dumps(dataclasses.replace(run.read_config(), **change).to_dict())  # type: ignore[arg-type]
        )
    measured.clear()
    after = evaluate_run(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"]
    assert getattr(before, name) != getattr(after, name)


def test_evaluate_run__what_was_kept_before_there_were_fingerprints_is_measured_anew(
    run: RunFolder, paths: Paths, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run.finish({"val_oiou": 1.0})
    numbers = np.ones(3, dtype=np.int64)
    names = ("image_ids", "intersections", "unions")
    np.savez_compressed(run.path / "counts.npz", **{f"val/{name}": numbers for name in names})  # type: ignore[arg-type]
    (run.path / "scores.json").write_text(json.dumps({"split": "refshapes", "method": "baseline", "by_split": {}}))
    found = evaluate_run(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"]
    assert "found others, older or damaged ones: measured anew" in " ".join(capsys.readouterr().out.split())
    assert json.loads((run.path / "scores.json").read_text()) == dataclasses.asdict(found)


@pytest.mark.parametrize("content", [b"PK no archive", b""])
def test_evaluate_run__damaged_counts_are_measured_anew(
    run: RunFolder, paths: Paths, measured: list[str], capsys: pytest.CaptureFixture[str], content: bytes
) -> None:
    run.finish({"val_oiou": 1.0})
    (run.path / "counts.npz").write_bytes(content)
    evaluate_run(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"]
    assert "counts.npz: expected counts of `semires evaluate`" in " ".join(capsys.readouterr().out.split())


def test_evaluate_run__no_run(tmp_path: Path, paths: Paths) -> None:
    with pytest.raises(InputError, match=r"found no .*nowhere"):
        evaluate_run(tmp_path / "nowhere", paths, CPU, ignore)


def test_scores_json__is_what_was_returned_and_reads_back(run: RunFolder, paths: Paths) -> None:
    run.finish({"val_oiou": 1.0})
    found = evaluate_run(run.path, paths, CPU, ignore)
    content = json.loads((run.path / "scores.json").read_text())
    assert content["by_split"] == found.by_split
    assert RunScores(**content) == found
    assert content["dropped_refs"] == found.dropped_refs == 0
    assert content["weights_sha256"] == run.best_sha256()


def test_evaluate_run__a_folder_that_cannot_be_written_costs_no_numbers(
    run: RunFolder, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    run.finish({"val_oiou": 1.0})
    expected = evaluate_run(run.path, paths, CPU, ignore)
    for name in ("counts.npz", "scores.json"):
        (run.path / name).unlink()
        (run.path / name).mkdir()  # root may write where it is not allowed to, but not this
    assert evaluate_run(run.path, paths, CPU, ignore) == expected
    out = " ".join(capsys.readouterr().out.split())
    assert "not kept, the next evaluation measures again: " in out
    assert "scores are not written: " in out


def test_evaluate_run__scores_know_how_many_refs_were_dropped(
    run: RunFolder, paths: Paths, refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    num = len(refshapes.refs_of("val"))
    lost = ReferProblems(no_image_file=(7, 9), num_refs={"val": num + 2}, dropped_of={"val": (7, 9)})
    monkeypatch.setattr(refshapes, "problems", lost)
    run.finish({"val_oiou": 1.0})
    with pytest.raises(InputError, match=rf"found 2 of {num + 2} of val \(ref ids 7, 9\); .*--allow-missing"):
        evaluate_run(run.path, paths, CPU, ignore)
    found = evaluate_run(run.path, dataclasses.replace(paths, allow_missing=True), CPU, ignore)
    assert found.dropped_refs == 2
    assert [values["dropped_refs"] for values in found.by_split.values()] == [2, 0, 0]
    content = json.loads((run.path / "scores.json").read_text())
    assert (content["dropped_refs"], content["by_split"]["val"]["dropped_refs"]) == (2, 2)


def test_pixel_counts__of_every_expression_give_the_scores(
    run: RunFolder, paths: Paths, refshapes: ReferDataset, measured: list[str]
) -> None:
    run.finish({})
    scores = evaluate_run(run.path, paths, CPU, ignore)
    measured.clear()
    counts = pixel_counts(run.path, paths, CPU, ignore)
    assert measured == []  # they are kept
    assert list(counts) == list(scores.by_split)
    for name, of_split in counts.items():
        refs = refshapes.refs_of(name)
        assert of_split.image_ids.tolist() == [ref.image_id for ref in refs for _ in ref.expressions]
        oiou = 100 * of_split.intersections.sum() / of_split.unions.sum()
        assert oiou == pytest.approx(scores.by_split[name]["oiou"])
    (run.path / "counts.npz").unlink()  # as of a run that was scored before there were any
    again = pixel_counts(run.path, paths, CPU, ignore)
    assert measured == ["val", "testA", "testB"]
    assert {name: of_split.unions.tolist() for name, of_split in again.items()} == {
        name: of_split.unions.tolist() for name, of_split in counts.items()
    }


def test_pixel_counts__unfinished(run: RunFolder, paths: Paths) -> None:
    with pytest.raises(InputError, match=r"result\.json"):
        pixel_counts(run.path, paths, CPU, ignore)
