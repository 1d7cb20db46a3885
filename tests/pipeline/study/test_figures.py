import dataclasses
import json
from pathlib import Path

import pytest
import torch
from rich.console import Console

from semires.pipeline.paths import Paths
from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.study.catalogue import find_study
from semires.pipeline.study.figures import MOST_POINTS, figure_tables
from semires.pipeline.study.results import SplitTable, StudyResult, StudyRun

CPU = torch.device("cpu")
SCORES = RunScores(split="refshapes", method="semires", labeled=0.05, by_split={})


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def write_metrics(folder: Path, phase: str, values: dict[int, float]) -> Path:
    folder.mkdir(parents=True)
    lines = [json.dumps({"phase": phase, "step": step, "val": {"oiou": oiou}}) + "\n" for step, oiou in values.items()]
    (folder / "metrics.jsonl").write_text("".join(lines))
    return folder


def result_of(*runs: StudyRun) -> StudyResult:
    table = SplitTable(split="refshapes", columns=("val",), rows={}, against=None, gains={})
    return StudyResult(name="n", title="t", table=None, tables=(table,), runs=runs)


def run_of(row: str, seed: int, folder: Path, burn_in: Path | None) -> StudyRun:
    return StudyRun(row=row, split="refshapes", share=0.05, seed=seed, folder=folder, burn_in=burn_in, scores=SCORES)


def test_figure_tables__curves_are_means_over_seeds(tmp_path: Path) -> None:
    runs = []
    for seed in range(2):
        burn_in = write_metrics(tmp_path / f"sup{seed}", "burn-in", {10: 20.0 + seed, 20: 30.0 + seed})
        mutual = write_metrics(tmp_path / f"semi{seed}", "mutual", dict.fromkeys(range(1, 12), 40.0 + seed))
        runs += [run_of("Sup", seed, burn_in, None), run_of("a [b]", seed, mutual, burn_in)]
    study = find_study("figure7")
    (table,), numbers, notes = figure_tables(study, result_of(*runs), Paths(data=tmp_path), CPU, ignore)
    console = Console(width=200, markup=False)
    with console.capture() as captured:
        console.print(table)
    lines = captured.get().splitlines()
    assert next(line for line in lines if "Sup" in line).replace("│", " ").split() == [
        "Sup",
        "20.50",
        "30.50",
        *"–" * 5,
    ]
    assert "a [b]" in captured.get()
    assert [column.header for column in table.columns][1:] == [
        "burn-in 10",
        "burn-in 20",
        *(f"mutual {step}" for step in (1, 3, 6, 9, 11)),
    ]
    assert len(table.columns) == 1 + 2 + MOST_POINTS
    assert numbers["curves"][1] == {
        "row": "a [b]",
        "split": "refshapes",
        "share": 0.05,
        "seed": 0,
        "burn-in": [[10, 20.0], [20, 30.0]],
        "mutual": [[step, 40.0] for step in range(1, 12)],
    }
    assert notes == ()


def test_figure_tables__a_run_that_cannot_be_audited_is_a_note(tmp_path: Path) -> None:
    run = run_of("IOM", 0, tmp_path / "gone", tmp_path / "gone too")
    tables, numbers, notes = figure_tables(find_study("figure6"), result_of(run), Paths(data=tmp_path), CPU, ignore)
    assert (tables, numbers) == ([], {"labels": []})
    assert notes[0].startswith(f"{tmp_path / 'gone'} is not audited: ")


@pytest.mark.parametrize("name", ["table1", "table9"])
def test_figure_tables__tables_show_scores_alone(tmp_path: Path, name: str) -> None:
    study = dataclasses.replace(find_study(name))
    assert figure_tables(study, result_of(), Paths(data=tmp_path), CPU, ignore) == ([], {}, ())
