"""`semires report` from the outside."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline import datasets
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]


def write_run(path: Path, method: str, *, finished: bool = True, burn_in: Path | None = None) -> Path:
    """A run of random weights on the shared RefShapes, two of whose images are labeled."""
    config = TrainConfig(split="refshapes", model="nano", labeled=0.25, precision="fp32", method=method)  # type: ignore[arg-type]
    folder = RunFolder(path)
    folder.start(config, [1, 2], {} if burn_in is None else {"burn_in": {"location": str(burn_in), "sha256": None}})
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    phase = "burn-in" if method == "supervised" else "mutual"
    folder.log({"phase": phase, "step": 5, "num_steps": 10, "val": {"oiou": 20.0}})
    if finished:
        folder.finish({"val_oiou": 20.0, "steps": 10, "num_steps": 10, "seconds": 1.0})
    return path


@pytest.fixture
def data(tmp_path: Path, refshapes_root: Path, refshapes_store: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared RefShapes with its candidates, whose view may be built."""
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=12, num_val=4, num_test=3))
    root = tmp_path / "data"
    shutil.copytree(refshapes_root, root)
    shutil.copytree(refshapes_store, root / "cache" / "refshapes.zarr")
    return root


def test_report__of_runs_measures_draws_and_says_what_is_missing(semires: Semires, tmp_path: Path, data: Path) -> None:
    first = write_run(tmp_path / "first", "supervised")
    second = write_run(tmp_path / "second", "semires", burn_in=first)
    third = write_run(tmp_path / "third", "baseline", finished=False)
    arguments = ("report", first, second, third, "--data", data, "--device", "cpu", "--gallery", 6)
    finished = semires(*arguments)
    assert (finished.code, finished.err) == (0, "")
    assert finished.out.splitlines()[-1] == "written: reports/report/index.html"
    assert f"not shown: {third}: no scores: the run is not finished" in finished.out
    page = (tmp_path / "reports" / "report" / "index.html").read_text(encoding="utf-8")
    for run in (first, second):
        val = json.loads((run / "scores.json").read_text(encoding="utf-8"))["by_split"]["val"]["oiou"]
        assert f'<span class="value">{val:.2f}</span>' in page
    assert page.count('<article class="example"') == 6
    assert page.count("data:image/webp;base64,") >= 18

    # Typed again it replaces its page, and measures nothing anew.
    times = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".html"}
    again = semires(*arguments)
    assert (again.code, "expressions of" in again.out) == (0, False)
    assert {path: path.stat().st_mtime_ns for path in times} == times


def test_report__of_a_study_that_is_not_trained(semires: Semires, tmp_path: Path, data: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('title = "My <own>"\nsplits = ["refshapes"]\nshares = [0.25]\n[[rows]]\nname = "Row"\n', "utf-8")
    finished = semires("report", mine, "--data", data, "--output", tmp_path / "out")
    assert (finished.code, finished.err) == (0, "")
    page = (tmp_path / "out" / "index.html").read_text(encoding="utf-8")
    assert "Row, refshapes 25%, seed 0: not trained yet" in page
    assert "<title>My &lt;own&gt;</title>" in page


def test_report__refuses_before_any_work(semires: Semires, assert_refused: Refused, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", "supervised")
    assert_refused(semires("report", run, "nothing"), "expected the folder of a run, or a study", "found 'nothing'")
    assert_refused(semires("report", run, "-o", run / "config.json"), "--output", "found a file at")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "index.html").write_text("<title>mine</title>", encoding="utf-8")
    assert_refused(semires("report", run, "-o", tmp_path / "site"), "found another at", "give another folder")
    assert not (run / "scores.json").exists()
