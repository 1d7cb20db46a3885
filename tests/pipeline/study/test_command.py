import json
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.running.launchers import LaunchOptions
from semires.pipeline.study import command
from semires.pipeline.study.catalogue import find_study
from semires.pipeline.study.cells import study_runs
from semires.pipeline.study.command import changed_study, parse_settings, plan_study, run_study, runs_of
from semires.pipeline.study.description import Study, parse_study
from semires.pipeline.study.results import Cell, SplitTable, StudyResult, StudyRun
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_changed_study__other_data_shares_and_seeds() -> None:
    table1 = find_study("table1")
    found = changed_study(table1, splits=["refcocog"], shares=[0.1], num_seeds=2)
    assert (found.splits, found.shares, found.seeds, found.only_here) == (
        ("refcocog",),
        {"refcocog": (0.1,)},
        (0, 1),
        False,
    )
    assert changed_study(table1) == table1
    mine = parse_study("mine", {"splits": ["refshapes"], "shares": [0.05, 0.1], "rows": [{"name": "a"}]})
    assert changed_study(mine, splits=["refcoco"]).shares == {"refcoco": (0.05, 0.1)}
    with pytest.raises(InputError, match="shares above 0 and at most 1"):
        changed_study(table1, shares=[2.0])


def test_parse_settings__values_are_toml_or_text() -> None:
    texts = [
        "match.inter1=0.6",
        "match.strategy=iom",
        "alpha=1",
        "precision=fp32",
        "refine=false",
        "swin=a=b [c]",
        "bert=\U0001f4c1",
    ]
    assert parse_settings(texts, "--set") == {
        "match": {"inter1": 0.6, "strategy": "iom"},
        "alpha": 1,
        "precision": "fp32",
        "refine": False,
        "swin": "a=b [c]",
        "bert": "\U0001f4c1",
    }


@pytest.mark.parametrize("text", ["alpha", "=1", "a b=1"])
def test_parse_settings__refuses_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="--set: expected NAME=VALUE, found "):
        parse_settings([text], "--set")


def test_runs_of__backbones_are_for_models_that_have_them() -> None:
    runs = runs_of(find_study("table1"), CPU, settings={"num_workers": 0}, backbones={"swin": "a", "bert": "b"})
    found = {(run.split, run.spec.config.swin, run.spec.config.bert, run.spec.config.num_workers) for run in runs}
    assert found == {
        *((split, "a", "b", 0) for split in ("refcoco", "refcoco+", "refcocog")),
        ("refshapes", None, None, 0),
    }


def test_runs_of__backbones_are_not_for_nano_rows_of_the_same_data() -> None:
    rows = [{"name": "a", "model": "nano"}, {"name": "b"}]
    study = parse_study("mine", {"splits": ["refcoco"], "rows": rows})
    runs = runs_of(study, CPU, backbones={"swin": "s"})
    assert [run.spec.config.swin for run in runs] == [None, "s"]
    assert runs[0] == study_runs(study, CPU)[0]


def result_of(study: Study, rows: tuple[str, ...], split: str) -> StudyResult:
    cells = {
        row.name: (Cell(measured=(40.0,) if row.name in rows else (), interval=None, published=None),)
        for row in study.rows
    }
    table = SplitTable(split=split, columns=("val",), rows=cells, against=None, gains={}, remarks=("A <b>remark</b>",))
    runs: Any = [
        StudyRun(row=run.row.name, split=split, share=run.share, seed=0, folder=Path("r"), burn_in=None, scores=None)  # type: ignore[arg-type]
        for run in study_runs(study, CPU)
        if run.row.name in rows and run.split == split
    ]
    return StudyResult(
        name=study.name, title=study.title, table=None, tables=(table,), runs=tuple(runs), not_measured=("x: [red]y",)
    )


@pytest.mark.parametrize(
    ("rows", "is_whole"), [(("SUPERVISED", "BASELINE", "SEMIRES", "SEMIRES-CC"), True), (("SUPERVISED",), False)]
)
def test_run_study__prints_and_writes(
    tmp_path: Path,
    tiny_study: Study,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rows: tuple[str, ...],
    is_whole: bool,
) -> None:
    monkeypatch.setattr(command, "conduct", lambda study, *rest, **options: result_of(study, rows, "refshapes"))
    paths = Paths(data=tmp_path, runs=tmp_path / "runs", reports=tmp_path / "reports")
    runs = study_runs(tiny_study, CPU)
    _, found = run_study(tiny_study, runs, paths, CPU, ignore, launch=LaunchOptions())
    assert found is is_whole
    out = capsys.readouterr().out
    assert out.startswith("tiny: 4 cells with 4 runs, 1 of them burn-ins; 0 are finished\n")
    assert "".join(out.split()).endswith(f"written:{paths.reports / 'tiny.md'},{paths.reports / 'tiny.json'}")
    text = (paths.reports / "tiny.md").read_text()
    assert "| SUPERVISED | 40.00 |" in text
    assert "A \\<b>remark\\</b>." in text
    assert "- x: \\[red]y" in text
    content = json.loads((paths.reports / "tiny.json").read_text())
    assert content["tables"][0]["rows"]["SUPERVISED"][0]["measured"] == [40.0]
    assert len(content["runs"]) == len(rows)


def test_run_study__nothing_measured_leaves_what_is_there(
    tmp_path: Path, tiny_study: Study, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = StudyResult(name="tiny", title="tiny", table=None, tables=(), runs=())
    monkeypatch.setattr(command, "conduct", lambda *rest, **options: nothing)
    paths = Paths(data=tmp_path, runs=tmp_path / "runs", reports=tmp_path / "reports")
    paths.reports.mkdir()
    (paths.reports / "tiny.json").write_text("of an earlier call")
    _, is_whole = run_study(tiny_study, study_runs(tiny_study, CPU), paths, CPU, ignore, launch=LaunchOptions())
    assert not is_whole
    assert "nothing was measured: what is in" in capsys.readouterr().out
    assert [path.read_text() for path in paths.reports.iterdir()] == ["of an earlier call"]


def test_run_study__a_data_set_that_is_not_here_is_missed_where_it_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table1 = find_study("table1")
    names = tuple(row.name for row in table1.rows)
    monkeypatch.setattr(command, "conduct", lambda study, *rest, **options: result_of(study, names, "refshapes"))
    paths = Paths(data=tmp_path, runs=tmp_path / "runs", reports=tmp_path / "reports")
    for study, expected in ((table1, True), (changed_study(table1, splits=["refcoco", "refshapes"]), False)):
        runs = study_runs(study, CPU)
        assert run_study(study, runs, paths, CPU, ignore, launch=LaunchOptions())[1] is expected


def test_run_study__a_data_set_that_is_here_and_failed_is_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table1 = find_study("table1")
    names = tuple(row.name for row in table1.rows)
    monkeypatch.setattr(command, "conduct", lambda study, *rest, **options: result_of(study, names, "refshapes"))
    here = ("refcoco", "refshapes")
    monkeypatch.setattr(command, "what_is_missing", lambda split, paths: None if split in here else "no data")
    paths = Paths(data=tmp_path, runs=tmp_path / "runs", reports=tmp_path / "reports")
    assert not run_study(table1, study_runs(table1, CPU), paths, CPU, ignore, launch=LaunchOptions())[1]


def test_plan_study__of_a_cluster_says_for_what(tmp_path: Path, tiny_study: Study) -> None:
    launch, runs = LaunchOptions(launcher="slurm"), study_runs(tiny_study, CPU)
    with pytest.raises(InputError, match="--plan: expected --plan-device"):
        plan_study(tiny_study, runs, Paths(data=tmp_path, runs=tmp_path / "runs"), CPU, launch=launch)


def test_plan_study__without_data(tmp_path: Path, tiny_study: Study, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs")
    file = tmp_path / "plan.json"
    runs = study_runs(tiny_study, CPU)
    plan_study(tiny_study, runs, paths, CPU, launch=LaunchOptions(), plan_device="h100", write_json_to=file)
    out = capsys.readouterr().out
    assert "runs: 4, of them finished 0; 3 start from 1 burn-in" in out
    assert len(json.loads(file.read_text())["kinds"]) == 4
    assert not paths.data.exists()
    assert not paths.runs.exists()
