"""`semires evaluate`: what is measured on what, and what a wrong or thinned data set may not do."""

import json
import pickle
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.stages.data.splits import SPLITS
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of random weights."""
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(split="refcoco", model="nano", method="supervised", labeled=0.25, precision="fp32")
    folder.start(config, [1037])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"val_oiou": 1.0})
    return folder


@pytest.fixture
def root(write_refer: Callable[..., Any]) -> Path:
    """A data root with a RefCOCO and a RefCOCO+."""
    for name in ("refcoco", "refcoco+"):
        root: Path = write_refer(name).root
    return root


def without(root: Path, split: str, data: str = "refcoco") -> None:
    """Take the refs of a split out of a data set."""
    spec = SPLITS[data]
    path = root / spec.folder / f"refs({spec.by}).p"
    refs = [ref for ref in pickle.loads(path.read_bytes()) if ref["split"] != split]
    path.write_bytes(pickle.dumps(refs, protocol=2))


def rows(out: str) -> list[str]:
    """The first cell of every row of the tables."""
    return re.findall(r"^(val|test[AB]) ", out, re.MULTILINE)


def test_evaluate__all_of_the_runs_own(semires: Semires, run: RunFolder, root: Path) -> None:
    finished = semires("evaluate", run.path, "--data", root, "--json", "out/scores.json")
    assert (finished.code, finished.err) == (0, "")
    assert rows(finished.out)[:3] == ["val", "testA", "testB"]
    assert finished.out.startswith("expressions of val: 8/8")
    assert "\nRefCOCO: Supervised, per cent" in finished.out
    assert "\n  left or right" in finished.out
    assert "val: 4 refs of 2 images (ref ids sha256 " in finished.out
    assert finished.out.splitlines()[-1] == "written: out/scores.json"
    content = json.loads(Path("out/scores.json").read_text(encoding="utf-8"))
    assert content["run"] == str(run.path)
    assert content["scores"] == [json.loads((run.path / "scores.json").read_text(encoding="utf-8"))]


def test_evaluate__data_without_a_split(semires: Semires, assert_refused: Refused, run: RunFolder, root: Path) -> None:
    """val and testA were measured, then testB was an error, and nothing was printed."""
    without(root, "testB")
    found = semires("evaluate", run.path, "--data", root, "--split", "val", "--split", "testB")
    assert_refused(found, "expected a split of refcoco with refs, found 'testB'; it has testA, train, val")
    assert "expressions of" not in found.out
    finished = semires("evaluate", run.path, "--data", root)
    assert finished.code == 0
    assert "not measured: refcoco testB: this data has no refs of it" in finished.out.splitlines()
    assert rows(finished.out)[:2] == ["val", "testA"]
    assert list(json.loads((run.path / "scores.json").read_text())["by_split"]) == ["val", "testA"]


def test_evaluate__data_with_none_of_its_splits(
    semires: Semires, assert_refused: Refused, run: RunFolder, root: Path
) -> None:
    for split in ("val", "testA", "testB"):
        without(root, split)
    text = "refcoco: expected refs in one of its evaluation splits (val, testA, testB), found train"
    assert_refused(semires("evaluate", run.path, "--data", root), text)


def test_evaluate__what_is_kept_is_no_answer_without_its_data(
    semires: Semires, assert_refused: Refused, run: RunFolder, root: Path, tmp_path: Path
) -> None:
    assert semires("evaluate", run.path, "--data", root).code == 0
    finished = semires("evaluate", run.path, "--data", tmp_path / "nonexistent")
    assert_refused(finished, "no data for refcoco: expected", "nonexistent")
    assert "val" not in finished.out


def test_evaluate__images_that_were_gone_and_came_back(semires: Semires, run: RunFolder, root: Path) -> None:
    """Scores of one image of three were printed for all of them."""
    image = sorted((root / SPLITS["refcoco"].images).iterdir())[8]
    shutil.move(image, root / image.name)
    command = ("evaluate", run.path, "--data", root, "--split", "val")
    assert semires(*command).code == 2
    thinned = semires(*command, "--allow-missing")
    assert thinned.code == 0
    assert "val: 2 refs of 1 images" in thinned.out
    assert "without 2 refs that were dropped on loading" in thinned.out
    shutil.move(root / image.name, image)
    whole = semires(*command)
    assert whole.code == 0
    assert "val was measured with other data: not used" in whole.out
    assert "val: 4 refs of 2 images" in whole.out
    assert "dropped" not in whole.out
    (values,) = json.loads((run.path / "scores.json").read_text())["by_split"].values()
    assert (values["num_samples"], values["dropped_refs"]) == (8, 0)
    assert "expressions of val" not in semires(*command).out  # kept


def test_evaluate__a_split_that_lost_all(semires: Semires, run: RunFolder, root: Path) -> None:
    for image in sorted((root / SPLITS["refcoco"].images).iterdir())[8:10]:
        image.unlink()
    finished = semires("evaluate", run.path, "--data", root)
    assert finished.code == 2
    assert "found 4 of 4 of val (ref ids 16, 17, 18, 19)" in finished.err
    finished = semires("evaluate", run.path, "--data", root, "--allow-missing")
    assert "not measured: refcoco val: all of its 4 refs were dropped on loading" in finished.out.splitlines()
    assert rows(finished.out)[:2] == ["testA", "testB"]


def test_evaluate__other_data_and_some_splits(semires: Semires, run: RunFolder, root: Path) -> None:
    command = ("evaluate", run.path, "--data", root)
    assert semires(*command, "--split", "testA").code == 0
    assert list(json.loads((run.path / "scores.json").read_text())["by_split"]) == ["testA"]
    other = semires(*command, "--on", "refcoco+", "--split", "testA", "--split", "testB")
    assert "RefCOCO+: Supervised trained on RefCOCO, per cent" in other.out
    assert rows(other.out)[:2] == ["testA", "testB"]
    content = json.loads((run.path / "scores-on-refcoco+.json").read_text())
    assert (content["split"], content["trained_on"]) == ("refcoco+", "refcoco")
    assert list(content["by_split"]) == ["testA", "testB"]
    # A data set's name stands for its evaluation splits, beside a split of the run's own.
    both = semires(*command, "--split", "val", "--split", "refcoco+")
    assert rows(both.out) == ["val", "val", "testA", "testB"]
    assert list(json.loads((run.path / "scores.json").read_text())["by_split"]) == ["val", "testA"]
    assert both.out.count("expressions of") == 2  # testA and testB of refcoco+ are kept


def test_evaluate__all_data_is_checked_before_any_is_measured(
    semires: Semires, assert_refused: Refused, run: RunFolder, root: Path
) -> None:
    finished = semires("evaluate", run.path, "--data", root, "--split", "val", "--split", "refcocog")
    assert_refused(finished, "no data for refcocog")
    assert "expressions of" not in finished.out
    assert_refused(semires("evaluate", run.path, "--data", root, "--on", "nonsense"), "found 'nonsense'")
    assert_refused(semires("evaluate", run.path, "--data", root, "--split", "[bold]x"), "found '[bold]x'")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_evaluate__a_file_of_every_expression(semires: Semires, run: RunFolder, root: Path, suffix: str) -> None:
    path = f"out/every{suffix}"
    command = ("evaluate", run.path, "--data", root, "--split", "val", "--native", "--per-expression", path)
    finished = semires(*command, "--num-workers", 0)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.splitlines()[-1] == f"written: {path}"
    assert "\nThe same at the images' own sizes" in finished.out
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        found = parquet.read_table(path).to_pylist()
    else:
        found = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    assert len(found) == 8
    assert [row["expression"] for row in found[:2]] == ["Left box!", "Box on the left!"]
    assert {(row["data"], row["split"]) for row in found} == {("refcoco", "val")}
    assert {row["native_union"] >= 12 * 10 for row in found} == {True}  # the box of the truth, of 24 x 32 pixels
    values = json.loads((run.path / "scores.json").read_text())["by_split"]["val"]
    for name, sums in (("", values), ("native_", values["native"])):
        oiou = 100 * sum(row[f"{name}intersection"] for row in found) / sum(row[f"{name}union"] for row in found)
        assert oiou == pytest.approx(sums["oiou"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (("--per-expression", "x.csv"), "--per-expression: expected a file ending in .jsonl or .parquet, found x.csv"),
        (("--per-expression", "taken.jsonl"), "--per-expression: expected a file that can be written"),
        (("--json", "taken.jsonl/x.json"), "--json: expected a file that can be written"),
    ],
)
def test_evaluate__files_are_checked_before_anything_is_measured(
    semires: Semires,
    assert_refused: Refused,
    run: RunFolder,
    root: Path,
    tmp_path: Path,
    options: tuple[str, ...],
    expected: str,
) -> None:
    folder = tmp_path / "taken.jsonl"
    if options[0] == "--json":
        folder.write_text("in the way")
    else:
        folder.mkdir()
    finished = semires("evaluate", run.path, "--data", root, *options)
    assert_refused(finished, expected)
    assert "expressions of" not in finished.out
