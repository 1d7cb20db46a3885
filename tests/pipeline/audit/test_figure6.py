import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from semires.pipeline.audit import figure6 as figure6_module
from semires.pipeline.audit.figure6 import CoursePoint, Figure6, course, figure6, figure6_tables
from semires.pipeline.paths import Paths
from semires.stages.train.matching import MatchConfig
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
MakeRun = Callable[..., Path]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def found(make_run: MakeRun, paths: Paths) -> Figure6:
    return figure6([make_run()], paths, CPU, ignore)


def test_figure6__groups_are_parts_of_all(found: Figure6) -> None:
    (audit,) = found.audits
    assert (audit.name, audit.matching, audit.num_refs) == ("run", "CPI 0.5/0.9", audit.num_refs)
    assert [reading.teacher for reading in audit.readings] == ["burn-in", "final"]
    for reading in audit.readings:
        of_all = reading.by_group["all"]
        assert of_all.num_refs == audit.num_refs == of_all.positive + of_all.negative + of_all.none
        for names in (("small", "medium", "large"), ("simple", "composite")):
            groups = [reading.by_group[name] for name in names if name in reading.by_group]
            for field in ("num_refs", "positive", "negative", "none", "matched"):
                assert sum(getattr(group, field) for group in groups) == getattr(of_all, field)
            mean = sum(group.num_refs * group.iou_after for group in groups) / of_all.num_refs
            assert mean == pytest.approx(of_all.iou_after)
    low, high = audit.size_limits
    assert 0 < low < high < 100
    assert audit.published is None  # of RefShapes the paper has nothing


def test_figure6__kept_in_the_run(found: Figure6) -> None:
    (audit,) = found.audits
    kept = json.loads((Path(audit.run) / "audit.json").read_text())
    assert kept["audit"] == json.loads(json.dumps(audit.to_dict()))
    by = kept["measured_by"]["final"]
    assert by["weights_sha256"] == RunFolder(Path(audit.run)).best_sha256()
    assert by["data"]["split"] == "train"
    assert by["refinement"]["match"]["strategy"] == "cpi"


def test_figure6__what_cannot_be_audited_is_a_note(make_run: MakeRun, paths: Paths, tmp_path: Path) -> None:
    run = make_run()
    (run / "sources.json").unlink()
    found = figure6([run.parent / "burn-in", run, tmp_path / "none"], paths, CPU, ignore)
    assert [audit.name for audit in found.audits] == ["run"]
    assert found.audits[0].reading("burn-in") is None
    refused, missing, absent = found.notes
    assert "burn-in is not audited: expected a run that refines labels" in refused
    assert "labels of the burn-in are not measured" in missing
    assert "none is not audited: expected a run of `semires train`" in absent
    assert figure6_tables(Figure6(audits=(), notes=())) == []


def text_of(found: Figure6) -> str:
    console = Console(width=200, record=True, file=io.StringIO())
    for table in figure6_tables(found):
        console.print(table)
    return console.export_text()


def test_figure6_tables__beside_the_papers(found: Figure6) -> None:
    lines = text_of(found).splitlines()
    final = next(line.split() for line in lines if "final" in line)
    of_all = found.audits[0].readings[1].by_group["all"]
    assert final[5] == f"{100 * of_all.positive / of_all.num_refs:.1f}"
    paper = next(line for line in lines if line.startswith("paper, RefCOCO 1%"))
    assert "41972" in paper
    assert "54.3" in paper  # 22,811 of them

    audit = replace(found.audits[0], split="refcoco", strategy="cpi-u")
    assert "36.2" in text_of(Figure6(audits=(audit,), notes=()))  # 15,181 of 41,972


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"labeled": 0.01}, (15_181, 4_446, 22_345)),
        ({"labeled": 0.05}, None),
        ({"labeled": 0.01, "match": MatchConfig(inter1=0.5)}, None),
        ({"labeled": 0.01, "method": "semires-cc"}, None),
    ],
)
def test_audit__published_of_the_papers_settings_alone(
    settings: dict[str, Any], expected: tuple[int, int, int] | None, make_run: MakeRun
) -> None:
    config = RunFolder(make_run(match=MatchConfig())).read_config()
    found = figure6_module._published_of(replace(config, split="refcoco", **settings))
    assert found == expected


def test_course__a_point_an_evaluation_of_mutual_learning(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.log({"phase": "burn-in", "step": 3, "num_steps": 3, "val": {"oiou": 1.0}})
    line = {"phase": "mutual", "step": 5, "num_steps": 20, "matched": 0.5, "improved": 0.25, "worsened": 0.125}
    folder.log(line | {"label_iou_before": 0.4, "label_iou_after": 0.5, "val": {"oiou": 41.5}})
    folder.log({"phase": "mutual", "step": 10, "num_steps": 20, "matched": 0.75, "val": {"oiou": 42.0}})
    first, second = course(tmp_path)
    assert first == CoursePoint(
        step=5,
        num_steps=20,
        matched=50.0,
        improved=25.0,
        worsened=12.5,
        iou_before=40.0,
        iou_after=50.0,
        val_oiou=41.5,
    )
    assert (second.matched, second.improved, second.iou_before) == (75.0, None, None)  # own data without masks
    assert course(tmp_path / "none") == ()
