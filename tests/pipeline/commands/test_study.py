"""`semires study labels` from the outside."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.pipeline import datasets
from semires.pipeline.audit import labels as labels_module
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]


def write_run(path: Path, labeled: list[int], *, is_finished: bool = True, **settings: Any) -> Path:
    config = TrainConfig(split="refshapes", model="nano", labeled=0.25, precision="fp32", **settings)
    folder = RunFolder(path)
    folder.start(config, labeled)
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    if is_finished:
        folder.finish({})
    return path


@pytest.fixture
def store(
    tmp_path: Path, refshapes_store: Path, refshapes_config: RefShapesConfig, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A store of the shared RefShapes without a view."""
    monkeypatch.setattr(datasets, "REFSHAPES", refshapes_config)
    return Path(shutil.copytree(refshapes_store, tmp_path / "store.zarr"))


@pytest.mark.usefixtures("semires")
def test_study_labels__table_and_json(
    semires: Semires, tmp_path: Path, refshapes_root: Path, refshapes: ReferDataset, store: Path
) -> None:
    run = write_run(tmp_path / "runs" / "mine", [1, 2], match=MatchConfig(inter1=0.6))
    arguments = ("study", "labels", run, "--data", refshapes_root, "--store", store, "--device", "cpu")
    finished = semires(*arguments, "--expressions", 0)
    assert (finished.code, finished.err) == (0, "")
    lines = finished.out.splitlines()
    assert lines[-1] == "written: reports/labels.json"
    found = json.loads((tmp_path / "reports" / "labels.json").read_text())
    num_refs = sum(ref.image_id not in (1, 2) for ref in refshapes.refs_of("train"))
    assert {name: found[name] for name in ("run", "split", "method", "num_refs", "num_images", "dropped_refs")} == {
        "run": str(run),
        "split": "refshapes",
        "method": "semires",
        "num_refs": num_refs,
        "num_images": 10,
        "dropped_refs": 0,
    }
    assert (found["expressions"], found["precision"], found["device"]) == (None, "fp32", "cpu")
    assert found["weights_sha256"] == RunFolder(run).best_sha256()
    assert found["seconds"] > 0
    assert any(line.startswith(f"{num_refs} unlabeled refs of 10 images") for line in lines)

    # Each row of both tables, in 80 characters; names that are longer go on in the next line.
    assert "…" not in finished.out
    words = [line.split() for line in lines]
    for row in found["rows"]:
        name, scores = row["refinement"]["name"], row["scores"]
        both, matched = scores["by_group"]["all"], scores["matched"]
        cells = [f"{both['miou']:.2f}", f"{both['oiou']:.2f}"]
        cells += [f"{100 * scores[key] / num_refs:.1f}" for key in ("positive", "negative", "none")]
        cells.append("–" if matched is None else f"{100 * matched / num_refs:.1f}")
        cells += [f"{100 * scores[key] / num_refs:.1f}" for key in ("two_objects", "wrong_object")]
        kinds = [scores["by_group"][kind] for kind in ("small", "medium", "large", "simple", "composite")]
        for numbers in (cells, [f"{kind['miou']:.1f}/{kind['oiou']:.1f}" for kind in kinds]):
            assert any(line[0] == name.split()[0] and line[-len(numbers) :] == numbers for line in words if line)
    names = [row["refinement"]["name"] for row in found["rows"]]
    assert names[-2:] == ["the run's own, CPI-U 0.6", "best candidate (oracle)"]
    assert found["rows"][-2]["refinement"]["match"]["inter1"] == 0.6

    # Typed again, another file; what it measures is the same.
    again = semires(*arguments, "--json", tmp_path / "other" / "two.json", "--expressions", 2)
    assert again.code == 0, again.err
    rows = json.loads((tmp_path / "other" / "two.json").read_text())["rows"]
    assert [row for row in rows if row["refinement"]["expressions"] == 1] == [
        row for row in found["rows"] if row["refinement"]["expressions"] == 1
    ]


@pytest.mark.usefixtures("semires")
def test_study_labels__refused_before_the_teacher_reads(
    semires: Semires,
    assert_refused: Refused,
    tmp_path: Path,
    refshapes_root: Path,
    refshapes: ReferDataset,
    store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*arguments: Any) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr(labels_module, "count_labels", never)
    places = ("--data", refshapes_root, "--device", "cpu")

    def refused(run: object, *options: object, said: tuple[str, ...]) -> None:
        assert_refused(semires("study", "labels", run, *places, *options), *said)
        assert not (tmp_path / "reports").exists()

    run = write_run(tmp_path / "run", [1, 2], method="supervised")
    refused("nowhere", said=("expected a run of `semires train`", "nowhere"))
    unfinished = write_run(tmp_path / "unfinished", [1], is_finished=False)
    refused(unfinished, said=("expected a finished run", "unfinished that is not"))
    everything = write_run(tmp_path / "everything", sorted({ref.image_id for ref in refshapes.refs_of("train")}))
    refused(everything, "--store", store, said=("expected a run with unlabeled train refs", "every image"))
    other = write_run(tmp_path / "other", [999])
    refused(other, "--store", store, said=("expected labeled images among those of the train refs", "999"))
    refused(run, "--store", tmp_path / "none.zarr", said=("expected a candidate store, found nothing",))

    partial = tmp_path / "partial.zarr"
    with StoreWriter(partial, Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64, num_images=12)) as writer:
        for image_id in (1, 2, 3):
            writer.add(CandidateStore(store)[image_id])
    refused(run, "--store", partial, said=("expected candidates of every unlabeled image", "none of 9 images"))
    assert not (partial / "views").exists()
    refused(run, "--store", store, "--json", tmp_path, said=("--json: expected a file that can be written",))
    (run / "best.safetensors").unlink()
    refused(run, said=("expected a run's weights",))
