"""`semires doctor` from the outside; the machine that runs the tests lacks nothing that it needs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Semires = Callable[..., Any]


def by_name(report: dict[str, Any], section: str) -> dict[str, dict[str, str]]:
    return {one["what"]: one for one in report["sections"][section]}


def test_doctor__a_machine_that_can_train(semires: Semires, tmp_path: Path, refshapes_root: Path) -> None:
    (tmp_path / "runs" / "studies" / "a").mkdir(parents=True)
    for name in ("config.json", "result.json"):
        (tmp_path / "runs" / "studies" / "a" / name).write_text("{}")
    finished = semires("doctor", "--data", refshapes_root, "--json", "-", "--thorough")
    assert finished.code == 0, finished.err
    report = json.loads(finished.out)
    assert report["can_train"]
    assert by_name(report, "data")["refshapes"]["found"].startswith("22 image files; refs: train ")
    refcoco = by_name(report, "data")["refcoco"]
    assert (refcoco["state"], refcoco["remedy"]) == ("missing", "semires data download refcoco coco-train2014")
    assert by_name(report, "runs")["runs"]["found"] == "1 finished, 0 not, in runs"
    assert by_name(report, "computing")["matching"]["found"].startswith("match_")
    assert by_name(report, "weights")["shipped model"]["state"] == "good"
    assert by_name(report, "packages")["torch"]["state"] == "good"


def test_doctor__in_words(semires: Semires, tmp_path: Path) -> None:
    finished = semires("doctor", "--json", "x.json")
    assert finished.code == 0, finished.err
    assert "-> semires data download refcoco coco-train2014" in finished.out
    assert "training on RefShapes can run here; data sets were not read and weights not hashed" in finished.out
    assert json.loads((tmp_path / "x.json").read_text())["can_train"]


def test_doctor__a_torch_that_does_not_import(semires: Semires, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    finished = semires("doctor", "--json", "-")
    assert finished.code == 1
    report = json.loads(finished.out)
    assert not report["can_train"]
    (broken,) = report["sections"]["computing"]
    assert broken["found"].startswith("ModuleNotFoundError: import of torch halted")
    assert by_name(report, "data")["refcoco"]["state"] == "missing"
    assert by_name(report, "next")["train, table1, study, report"]["state"] == "bad"


def test_doctor__a_data_root_that_is_a_file(semires: Semires, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    finished = semires("doctor")
    assert finished.code == 1
    assert "which cannot be written" in finished.out
    assert "training on RefShapes CANNOT run here" in finished.out
