from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.study.cells import study_runs
from semires.pipeline.study.description import Study, parse_study
from semires.pipeline.study.gathering import ScoredRun, split_table
from semires.pipeline.study.results import SplitTable, StudyRun

SPLITS = {"refcoco": ("val", "testA", "testB"), "refshapes": ("val", "testA", "testB"), "refcocog": ("val", "test")}


def counts(oiou: float, num_images: int = 20) -> PixelCounts:
    unions = np.full(num_images, 1000)
    return PixelCounts(
        image_ids=np.arange(num_images), intersections=np.full(num_images, round(10 * oiou)), unions=unions
    )


def scored(
    row: str, oiou: float, *, split: str = "refcoco", share: float = 0.01, seed: int = 0, **of_scores: Any
) -> ScoredRun:
    scores = RunScores(split=split, method="semires", labeled=share, by_split={"val": {}, "testA": {}}, **of_scores)
    run = StudyRun(row=row, split=split, share=share, seed=seed, folder=Path("run"), burn_in=None, scores=scores)
    return ScoredRun(run=run, counts={"val": counts(oiou), "testA": counts(oiou / 2)})


def study_of(**content: Any) -> Study:
    rows = [
        {"name": "Sup", "method": "supervised", "published": "Supervised"},
        {"name": "Ours", "published": "SemiRES", "remark": "Ours is ours"},
    ]
    return parse_study("mine", {"splits": ["refcoco"], "table": "Table 1", "rows": rows, **content})


def shares_of(study: Study, split: str = "refcoco") -> dict[str, tuple[float, ...]]:
    found: dict[str, tuple[float, ...]] = {}
    for run in study_runs(study, torch.device("cpu")):
        if run.split == split and run.share not in found.get(run.row.name, ()):
            found[run.row.name] = (*found.get(run.row.name, ()), run.share)
    return found


def texts(table: SplitTable) -> dict[str, list[str]]:
    return {name: [str(cell) for cell in cells] for name, cells in table.rows.items()}


def test_split_table__each_run_in_its_cell() -> None:
    study = study_of(shares=[0.01, 0.02], against="Sup")
    runs = [scored("Sup", 30), scored("Ours", 50), scored("Ours", 60, share=0.02)]
    table = split_table(study, "refcoco", shares_of(study), runs)
    assert table.columns == ("1% val", "1% testA", "1% testB", "2% val", "2% testA", "2% testB")
    assert texts(table) == {
        "Sup": ["30.00 (32.26)", "15.00 (35.71)", "– (28.02)", "– (39.46)", "– (42.50)", "– (35.26)"],
        "Ours": ["50.00 (50.90)", "25.00 (57.54)", "– (44.48)", "60.00 (54.85)", "30.00 (60.39)", "– (48.52)"],
    }
    assert list(table.gains) == ["Ours"]
    assert [str(gain) for gain in table.gains["Ours"]][:3] == [
        "+20.00 (+20.00 to +20.00) [+18.64]",
        "+10.00 (+10.00 to +10.00) [+21.83]",
        "– [+16.46]",
    ]
    assert (table.against, table.reference, table.remarks) == ("Sup", None, ("Ours is ours",))


def test_split_table__seeds_in_their_order_with_an_interval_around_the_mean() -> None:
    study = study_of(seeds=3, shares=[0.01])
    runs = [scored("Ours", oiou, seed=seed) for seed, oiou in ((2, 40), (0, 50), (1, 45))]
    cell = split_table(study, "refcoco", shares_of(study), runs).rows["Ours"][0]
    assert cell.measured == (50.0, 45.0, 40.0)
    assert cell.interval is not None
    assert 40 <= cell.interval[0] < 45 < cell.interval[1] <= 50
    assert str(cell) == "45.00 ± 5.00 (50.90)"


def test_split_table__a_gain_is_of_the_seeds_that_both_have() -> None:
    study = study_of(seeds=2, against="Sup", shares=[0.01])
    runs = [scored("Sup", 30), scored("Sup", 40, seed=1), scored("Ours", 45, seed=1)]
    table = split_table(study, "refcoco", shares_of(study), runs)
    gain = table.gains["Ours"][0]
    assert gain.mean == pytest.approx(5.0)
    assert gain.interval == pytest.approx((5.0, 5.0))
    # So is its interval where the other row lacks a seed.
    runs = [scored("Sup", 30), scored("Ours", 36), scored("Ours", 45, seed=1)]
    gain = split_table(study, "refcoco", shares_of(study), runs).gains["Ours"][0]
    assert str(gain).startswith("+6.00 (+6.00 to +6.00)")
    runs = [scored("Sup", 30), scored("Sup", 40, seed=1), scored("Ours", 45, seed=1)]
    # A row that began with other seeds alone has none.
    assert split_table(study, "refcoco", shares_of(study), [runs[0], runs[2]]).gains["Ours"][0].mean is None


def test_split_table__refshapes_stands_beside_the_papers_refcoco_and_never_for_it() -> None:
    study = study_of(splits=["refshapes"])
    table = split_table(
        study, "refshapes", shares_of(study, "refshapes"), [scored("Sup", 42, split="refshapes", share=0.05)]
    )
    assert table.columns == ("val", "testA", "testB")
    assert {cell.published for cells in table.rows.values() for cell in cells} == {None}
    assert table.reference is not None
    assert table.reference.title == "paper: RefCOCO 1% val"
    assert dict(table.reference.rows) == {"Sup": 32.26, "Ours": 50.90}
    assert table.remarks == ()  # nothing of ours was measured


def test_split_table__rows_with_shares_of_their_own_stand_beside_the_papers_same() -> None:
    rows = [
        {"name": "10%", "labeled": 0.1, "published": "SemiRES"},
        {"name": "20%", "labeled": 0.2, "published": "SemiRES"},
    ]
    study = study_of(splits=["refshapes"], table="Table 6", rows=rows)
    runs = [scored("10%", 60, split="refshapes", share=0.1), scored("20%", 61, split="refshapes", share=0.2)]
    table = split_table(study, "refshapes", shares_of(study, "refshapes"), runs)
    assert table.columns == ("val", "testA", "testB")
    assert [cells[0].measured for cells in table.rows.values()] == [(60.0,), (61.0,)]
    assert table.reference is not None
    assert (table.reference.title, dict(table.reference.rows)) == ("paper: RefCOCO val", {"10%": 63.60, "20%": 65.97})


def test_split_table__a_share_that_is_not_its_columns_is_said() -> None:
    rows = [{"name": "SemiRES"}, {"name": "all", "method": "supervised", "labeled": 1}]
    study = study_of(rows=rows, table=None, shares=[0.01])
    table = split_table(study, "refcoco", shares_of(study), [scored("SemiRES", 50), scored("all", 70, share=1.0)])
    assert table.remarks == ("all is trained with 100% of the labels, whatever its column says",)


def test_split_table__parts_of_splits() -> None:
    study = study_of(table="Table 9", subsets=["smallest 5%"], against="Sup", shares=[0.01])
    run = scored("Ours", 50)
    small = ScoredRun(run=run.run, counts={"val smallest 5%": counts(20.0)})
    table = split_table(study, "refcoco", shares_of(study), [small])
    assert table.columns == ("1% val smallest 5%", "1% testA smallest 5%", "1% testB smallest 5%")
    assert texts(table)["Ours"] == ["20.00 (20.45)", "– (27.21)", "– (17.04)"]
    assert table.gains["Ours"][0].published == 9.08


def test_split_table__rows_with_other_expressions_in_a_part_have_intervals_of_their_own() -> None:
    """They were drawn together, which failed after all training."""
    study = study_of(table=None, subsets=["6+ words"], against="Sup", rows=[{"name": "Sup"}, {"name": "Ours"}])
    runs = [
        ScoredRun(run=scored(row, 50).run, counts={"val 6+ words": counts(oiou, num_images)})
        for row, oiou, num_images in (("Sup", 30, 20), ("Ours", 40, 10))
    ]
    table = split_table(study, "refcoco", shares_of(study), runs)
    assert [cells[0].interval for cells in table.rows.values()] == [(30, 30), (40, 40)]
    assert str(table.gains["Ours"][0]) == "–"


def test_split_table__says_what_a_data_set_lost() -> None:
    study = study_of(shares=[0.01])
    runs = [scored("Ours", 50, dropped_refs=2), scored("Sup", 50, dropped_refs=12)]
    remarks = split_table(study, "refcoco", shares_of(study), runs).remarks
    assert remarks == ("Ours is ours", "Without 12 refs of the data set that were dropped on loading")
