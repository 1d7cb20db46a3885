import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.recipes import train_recipe
from semires.pipeline.report.run_study import as_study, method_name, row_names, scored
from semires.pipeline.report.runs import ReportedRun, read_run
from semires.pipeline.study.results import StudyResult
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.views import ViewConfig

SHAPES = train_recipe("refshapes")


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    raise AssertionError(f"{what}: all is kept")


def study_of(folders: list[Path], tmp_path: Path) -> StudyResult:
    runs = [read_run(folder, "") for folder in folders]
    names = row_names([run.config for run in runs])
    runs = [dataclasses.replace(run, row=name) for run, name in zip(runs, names, strict=True)]
    paths = Paths(data=tmp_path / "no data")
    return as_study(runs, [scored(run, paths, torch.device("cpu"), ignore) for run in runs])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (dataclasses.replace(SHAPES, method="supervised"), "Supervised"),
        (SHAPES, "SemiRES, CPI-U 0.7"),
        (dataclasses.replace(SHAPES, match=MatchConfig(strategy="iom", iou_rate=0.6)), "SemiRES, IOM 0.6"),
        (dataclasses.replace(SHAPES, method="semires-cc", refine=False), "SemiRES-CC without refinement"),
    ],
)
def test_method_name(config: TrainConfig, name: str) -> None:
    assert method_name(config) == name


def test_row_names__seeds_and_shares_are_of_one_row_other_settings_are_not() -> None:
    configs = [
        SHAPES,
        dataclasses.replace(SHAPES, seed=1, labeled=0.1, num_workers=3),
        dataclasses.replace(SHAPES, pwa=False),
        dataclasses.replace(SHAPES, alpha=0.5, pwa=False),
        dataclasses.replace(SHAPES, num_workers=2),  # computes the same as the first
        dataclasses.replace(SHAPES, method="baseline"),
    ]
    assert row_names(configs) == [
        "SemiRES, CPI-U 0.7",
        "SemiRES, CPI-U 0.7",
        "SemiRES, CPI-U 0.7 (pwa false)",
        "SemiRES, CPI-U 0.7 (pwa false, alpha 0.5)",
        "SemiRES, CPI-U 0.7, again",
        "Baseline",
    ]


def test_as_study__gains_over_supervised_beside_the_paper(write_run: Callable[..., Path], tmp_path: Path) -> None:
    """What is kept needs neither data nor weights that are any."""
    settings = {"split": "refcoco", "model": "base", "labeled": 0.01}
    folders = [
        write_run("semires-0", best=50, burn_in=tmp_path / "sup-0", **settings),
        write_run("semires-1", best=52, burn_in=tmp_path / "sup-1", seed=1, **settings),
        write_run("sup-0", best=30, method="supervised", **settings),
        write_run("sup-1", best=31, method="supervised", seed=1, **settings),
    ]
    found = study_of(folders, tmp_path)
    (table,) = found.tables
    assert (table.columns, table.against, list(table.rows)) == (
        ("1% val", "1% testA", "1% testB"),
        "Supervised",
        ["Supervised", "SemiRES, CPI-U 0.7"],
    )
    cell = table.rows["SemiRES, CPI-U 0.7"][0]
    assert (cell.measured, cell.published) == ((50.0, 52.0), 50.9)
    gain = table.gains["SemiRES, CPI-U 0.7"][0]
    assert (gain.mean, gain.published) == (20.5, 18.64)
    assert gain.interval is not None
    assert (found.title, len(found.runs)) == ("Runs on RefCOCO", 4)


@pytest.mark.parametrize(
    ("settings", "published"),
    [
        ({}, 50.9),
        ({"match": MatchConfig(inter1=0.6)}, None),
        ({"pwa": False}, None),
        ({"model": "small"}, None),
        ({"labeled_list": "mine.txt"}, None),
        ({"method": "baseline"}, 42.62),
        ({"method": "baseline", "views": ViewConfig(jitter_probability=0.0)}, None),  # Table 5's MLT
    ],
)
def test_as_study__the_papers_number_beside_the_papers_method_only(
    write_run: Callable[..., Path], tmp_path: Path, settings: dict[str, object], published: float | None
) -> None:
    run = write_run("run", **({"split": "refcoco", "model": "base", "labeled": 0.01} | settings))
    (table,) = study_of([run], tmp_path).tables
    assert [cells[0].published for cells in table.rows.values()] == [published]
    assert (table.against, table.gains) == (None, {})


def test_as_study__a_list_of_labeled_images_is_no_share(write_run: Callable[..., Path], tmp_path: Path) -> None:
    runs = [
        write_run("drawn", best=40),
        write_run("listed", best=50, labeled_list="mine.txt"),
        write_run("sup", best=30, method="supervised", labeled_list="mine.txt"),
    ]
    drawn, listed = study_of(runs, tmp_path).tables
    assert (drawn.columns[0], list(drawn.rows)) == ("5% val", ["SemiRES, CPI-U 0.7"])
    assert listed.columns[0] == "val"
    assert [cells[0].measured for cells in listed.rows.values()] == [(30.0,), (50.0,)]
    assert listed.against == "Supervised, list-mine"
    assert listed.gains["SemiRES, CPI-U 0.7, list-mine"][0].mean == 20


def test_as_study__refshapes_beside_refcocos_numbers_under_their_name(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    (table,) = study_of([write_run("run", views=SHAPES.views)], tmp_path).tables
    assert table.rows["SemiRES, CPI-U 0.7"][0].published is None
    assert table.reference is not None
    assert table.reference.title == "paper: RefCOCO 1% val"
    assert table.reference.rows == {"SemiRES, CPI-U 0.7": 50.9}


def test_as_study__scores_of_other_expressions_are_left_out_and_said(
    write_run: Callable[..., Path], tmp_path: Path
) -> None:
    folders = [write_run("one"), write_run("two", seed=1, num_images=7)]
    found = study_of(folders, tmp_path)
    assert [run.folder for run in found.runs] == folders[:1]
    (line,) = found.not_measured
    assert line.startswith(f"{folders[1]}: its scores are of other expressions than those of {folders[0]}")


def test_scored__is_measured_where_it_is_not_kept(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run: ReportedRun = read_run(write_run("run", split="refcoco", scores=False), "SemiRES")
    with pytest.raises(InputError, match="refcoco"):
        scored(run, Paths(data=tmp_path / "no data"), torch.device("cpu"), ignore)
