import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.report.audits import audit_outcomes, kept_reading
from semires.pipeline.report.content import CellView
from semires.pipeline.report.curves import Group
from semires.pipeline.report.runs import ReportedRun, read_run
from semires.stages.data.errors import InputError
from semires.stages.train.run_folder import RunFolder


def counted(positive: int, negative: int, num_refs: int = 100) -> dict[str, Any]:
    rest = {"none": num_refs - positive - negative, "matched": 60, "iou_before": 40.0, "iou_after": 50.0}
    return {"num_refs": num_refs, "positive": positive, "negative": negative, **rest}


def audited(folder: Path, *positives: int) -> ReportedRun:
    """A run with what `figure6` keeps of its burn-in's and its own model."""
    sha256 = RunFolder(folder).best_sha256()
    readings = [
        {"teacher": teacher, "weights_sha256": weights, "by_group": {"all": counted(positive, 10)}}
        for teacher, weights, positive in zip(("final", "burn-in"), (sha256, "other"), positives, strict=False)
    ]
    readings[0]["by_group"]["small"] = counted(5, 5, 80)
    (folder / "audit.json").write_text(json.dumps({"audit": {"readings": readings}}), encoding="utf-8")
    return read_run(folder, "SemiRES")


def test_audit_outcomes__means_over_seeds_and_sizes(write_run: Callable[..., Path]) -> None:
    runs = (audited(write_run("a"), 50, 20), audited(write_run("b", seed=1), 70), read_run(write_run("c"), "SemiRES"))
    figure = audit_outcomes([Group(name="SemiRES", number=1, runs=runs)], name="audit", title="RefShapes")
    assert figure is not None
    assert (
        "SemiRES, burn-in&#39;s model: 20.0% positive, 10.0% negative, 70.0% none. SemiRES, best model: 60.0% "
        "positive, 10.0% negative, 30.0% none."
    ) in figure.charts[0].drawn
    assert "paper, RefCOCO 1%, CPI-U: 36.2% positive, 10.6% negative, 53.2% none." in figure.charts[0].drawn
    assert figure.table is not None
    assert figure.table.columns == ("all", "small")
    first, second = (row.cells for row in figure.table.rows)
    assert first == (CellView(value="60%", spread="20.0 / 10.0 / 70.0", interval="40.0 → 50.0"), CellView(value="–"))
    assert second[1] == CellView(value="75%", spread="6.2 / 6.2 / 87.5", interval="40.0 → 50.0")


def test_audit_outcomes__none_where_nothing_is_kept(write_run: Callable[..., Path]) -> None:
    group = Group(name="SemiRES", number=0, runs=(read_run(write_run("run"), "SemiRES"),))
    assert audit_outcomes([group], name="audit", title="RefShapes") is None


def test_kept_reading__of_other_weights_is_none_and_another_file_an_error(write_run: Callable[..., Path]) -> None:
    run = audited(write_run("run"), 50)
    assert kept_reading(run, "final") is not None
    (run.folder / "best.safetensors").write_bytes(b"others")
    assert kept_reading(run, "final") is None
    (run.folder / "audit.json").write_text("[]", encoding="utf-8")
    with pytest.raises(InputError, match="expected what `semires study figure6` keeps"):
        kept_reading(run, "final")
