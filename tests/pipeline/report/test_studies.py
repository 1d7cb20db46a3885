import dataclasses
from collections.abc import Callable
from pathlib import Path

from semires.pipeline.report.studies import study_view, with_runs
from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.study.results import Cell, SplitTable, StudyResult, StudyRun


def result_of(*folders: Path) -> StudyResult:
    cell = Cell(measured=(50.0,), interval=(48.0, 52.0), published=None)
    scores = RunScores(split="refshapes", method="semires", labeled=0.05, by_split={})
    return StudyResult(
        name="mine",
        title="Mine",
        table=None,
        tables=(
            SplitTable(
                split="refshapes",
                columns=("5% val",),
                rows={"SemiRES": (cell,)},
                against=None,
                gains={},
                remarks=("So",),
            ),
        ),
        runs=tuple(
            StudyRun(row="SemiRES", split="refshapes", share=0.05, seed=0, folder=folder, burn_in=None, scores=scores)
            for folder in folders
        ),
        not_measured=("refcoco: missing",),
    )


def test_study_view__tables_then_figures_of_every_share(write_run: Callable[..., Path]) -> None:
    said: list[str] = []
    study = with_runs(result_of(write_run("a"), write_run("b", labeled=0.01)), said.append)
    view = study_view(study, said.append, name="study-0")
    assert said == []
    assert [table.caption for table in view.tables] == [
        "RefShapes (embedded benchmark; not comparable with the paper): oIoU in per cent; the interval that holds 95%"
    ]
    assert [figure.heading for figure in view.figures] == [
        "At a glance: RefShapes",
        *(
            f"{what}: RefShapes, {share} labeled"
            for share in ("1%", "5%")
            for what in ("Learning curves", "Label quality over time", "What refinement makes of labels")
        ),
    ]
    assert (view.remarks, view.not_measured) == (("So",), ("refcoco: missing",))


def test_study_view__a_row_has_one_colour_in_all_tables_and_charts(write_run: Callable[..., Path]) -> None:
    found = result_of(write_run("a", split="refcoco"))
    first = dataclasses.replace(found.tables[0], rows={"Supervised": found.tables[0].rows["SemiRES"]})
    study = with_runs(dataclasses.replace(found, tables=(first, found.tables[0])), lambda text: None)
    view = study_view(study, lambda text: None, name="study-0")
    assert [row.tone for table in view.tables for row in table.rows] == ["tone-0", "tone-1"]
    glance, curves = (
        next(figure for figure in view.figures if figure.heading.startswith(what))
        for what in ("At a glance: RefShapes", "Learning curves")
    )
    assert curves.legend == (("tone-1", "SemiRES"),)
    assert 'class="tone-0"' in glance.charts[0].drawn


def test_with_runs__a_folder_that_is_gone_is_said(write_run: Callable[..., Path]) -> None:
    said: list[str] = []
    study = with_runs(result_of(write_run("a"), Path("gone")), said.append)
    assert len(study.runs) == 1
    (line,) = said
    assert line.startswith(
        "Mine: SemiRES, seed 0: no curves, no settings: expected a run of `semires train`, found no gone"
    )
