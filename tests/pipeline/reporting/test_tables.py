import dataclasses
import json
from typing import Any

import pytest
from rich.console import Console

from semires.pipeline.recipes import TABLE1_METHODS
from semires.pipeline.reporting.tables import (
    TITLES,
    Cell,
    Measured,
    as_json,
    as_markdown,
    as_rich,
    split_table,
)
from semires.pipeline.scoring.scores import RunScores
from semires.stages.data.splits import SPLITS


def scores_of(split: str, method: str, share: float, oiou: float) -> RunScores:
    by_split: dict[str, dict[str, Any]] = {
        name: {"oiou": oiou + number, "miou": 5.0, "precision": {"0.5": 50.0, "0.9": 1.0}, "num_samples": 7}
        for number, name in enumerate(SPLITS[split].evaluation)
    }
    return RunScores(split=split, method=method, labeled=share, by_split=by_split)


def run_of(split: str, method: str, share: float, oiou: float, seed: int = 0) -> Measured:
    return Measured(seed=seed, scores=scores_of(split, method, share, oiou))


@pytest.mark.parametrize(
    ("measured", "published_number", "expected"),
    [
        ((), None, "–"),
        ((), 50.9, "– (50.90)"),
        ((12.346,), None, "12.35"),
        ((12.346,), 50.9, "12.35 (50.90)"),
        ((1.0, 2.0, 3.0), None, "2.00 ± 1.00"),
        ((1.0, 2.0, 3.0), 4.5, "2.00 ± 1.00 (4.50)"),
    ],
)
def test_cell__text(measured: tuple[float, ...], published_number: float | None, expected: str) -> None:
    assert str(Cell(measured=measured, published=published_number)) == expected


def test_titles__every_split_and_refshapes_said_to_be_another_thing() -> None:
    assert set(TITLES) == set(SPLITS)
    assert "not comparable" in TITLES["refshapes"]
    assert "RefCOCO" not in TITLES["refshapes"]


def test_split_table__each_run_in_its_cell() -> None:
    runs = [
        run_of("refcoco", "semires", 0.01, 40.0),
        run_of("refcoco", "supervised", 0.02, 10.0),
        run_of("refcoco", "baseline", 0.01, 20.0),
    ]
    table = split_table("refcoco", (0.01, 0.02), runs)
    assert table.columns == ("1% val", "1% testA", "1% testB", "2% val", "2% testA", "2% testB")
    assert list(table.rows) == list(TABLE1_METHODS)
    assert [str(cell) for cell in table.rows["semires"]] == [
        *("40.00 (50.90)", "41.00 (57.54)", "42.00 (44.48)"),
        *("– (54.85)", "– (60.39)", "– (48.52)"),
    ]
    assert [str(cell) for cell in table.rows["supervised"]] == [
        *("– (32.26)", "– (35.71)", "– (28.02)"),
        *("10.00 (39.46)", "11.00 (42.50)", "12.00 (35.26)"),
    ]
    assert [cell.measured for cell in table.rows["baseline"]] == [(20.0,), (21.0,), (22.0,), (), (), ()]


def test_split_table__half_a_per_cent_is_not_rounded_away() -> None:
    assert split_table("refcocog", (0.005,), []).columns == ("0.5% val", "0.5% test")


def test_split_table__seeds_in_their_order() -> None:
    runs = [run_of("refshapes", "semires", 0.05, oiou, seed) for seed, oiou in ((2, 30.0), (0, 10.0), (1, 26.0))]
    table = split_table("refshapes", (0.05,), runs)
    assert table.rows["semires"][0].measured == (10.0, 26.0, 30.0)
    assert str(table.rows["semires"][0]) == "22.00 ± 10.58"


def test_tables__say_which_row_is_not_the_papers() -> None:
    table = split_table("refcocog", (0.01,), [run_of("refcocog", "semires-cc", 0.01, 43.3)])
    text = as_markdown([table], [])
    assert "| SemiRES-CC | 43.30 | 44.30 |" in text
    assert "SemiRES-CC is not the paper's: it also uses" in text
    assert "is not the paper's" not in as_markdown([split_table("refcocog", (0.01,), [])], [])
    assert "SemiRES-CC is not the paper's" in printed(as_rich(table))


def test_as_markdown__one_seed() -> None:
    table = split_table("refcocog", (0.01,), [run_of("refcocog", "semires", 0.01, 33.3)])
    assert as_markdown([table], ["refcoco: put it there"]).splitlines() == [
        "# Table 1, measured",
        "",
        "Overall IoU in per cent; in parentheses the paper's number.",
        "",
        "## G-Ref (UMD)",
        "",
        "| method | 1% val | 1% test |",
        "|---|---:|---:|",
        "| Supervised | – (24.31) | – (24.72) |",
        "| Baseline | – (30.91) | – (31.51) |",
        "| SemiRES | 33.30 (34.76) | 34.30 (36.18) |",
        "| SemiRES-CC | – | – |",
        "",
        "## Not measured",
        "",
        "- refcoco: put it there",
    ]


def test_as_markdown__three_seeds_and_nothing_missing() -> None:
    runs = [run_of("refshapes", method, 0.05, 10.0 * seed, seed) for seed in range(3) for method in TABLE1_METHODS]
    text = as_markdown([split_table("refshapes", (0.05,), runs)], [])
    assert f"## {TITLES['refshapes']}" in text
    assert "| SemiRES | 10.00 ± 10.00 | 11.00 ± 10.00 | 12.00 ± 10.00 |" in text
    assert "Not measured" not in text
    assert "(" not in text.split("|---")[1]  # no published number beside RefShapes


def test_as_json__holds_every_number() -> None:
    runs = [run_of("refcoco", "semires", 0.01, 40.0, seed) for seed in range(3)]
    table = split_table("refcoco", (0.01,), runs)
    content = json.loads(json.dumps(as_json([table], runs, ["refcocog: missing"])))
    assert content["not_measured"] == ["refcocog: missing"]
    assert content["tables"][0]["split"] == "refcoco"
    assert content["tables"][0]["rows"]["semires"][1] == {"measured": [41.0, 41.0, 41.0], "published": 57.54}
    assert [run["seed"] for run in content["runs"]] == [0, 1, 2]
    assert content["runs"][0]["scores"]["by_split"]["testB"]["oiou"] == 42.0


def printed(table: Any) -> str:
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table)
    return capture.get()


def test_as_rich__shows_every_cell() -> None:
    table = split_table("refcoco", (0.01,), [run_of("refcoco", "semires", 0.01, 40.0)])
    text = printed(as_rich(table))
    for word in ("RefCOCO, oIoU %", "1% testB", "Supervised", "40.00 (50.90)", "– (32.26)"):
        assert word in text


def test_split_table__a_split_that_was_not_measured_is_a_dash() -> None:
    """Of data without testB, for instance."""
    run = run_of("refcoco", "semires", 0.01, 40.0)
    del run.scores.by_split["testB"]
    assert [str(cell) for cell in split_table("refcoco", (0.01,), [run]).rows["semires"]] == [
        *("40.00 (50.90)", "41.00 (57.54)", "– (44.48)"),
    ]


def test_tables__say_what_was_not_there() -> None:
    """Scores of a data set that lost refs, and of one from before they were counted."""
    runs = [run_of("refcoco", "semires", 0.01, 50.0, seed) for seed in (0, 1)]
    whole = split_table("refcoco", [0.01], runs)
    runs[1] = Measured(seed=1, scores=dataclasses.replace(runs[1].scores, dropped_refs=12))
    lossy = split_table("refcoco", [0.01], runs)
    text = "Without 12 refs of the data set that were dropped on loading"
    assert f"{text}." in as_markdown([lossy], []).splitlines()
    assert as_rich(lossy).caption == text
    assert "dropped" not in as_markdown([whole], [])
    assert as_rich(whole).caption is None
    content = as_json([lossy], runs, [])
    assert content["tables"][0]["dropped_refs"] == 12
    assert [run["scores"]["dropped_refs"] for run in content["runs"]] == [None, 12]


def test_tables__own_data_by_its_files_name_and_its_own_splits() -> None:
    split = "photos/[red] my.jsonl"
    measured = {"oiou": 50.0, "miou": 50.0, "precision": {"0.5": 1.0}, "num_samples": 3}
    scores = RunScores(split=split, method="semires", labeled=1.0, by_split={"val": measured, "test-night": measured})
    table = split_table(split, (1.0,), [Measured(seed=0, scores=scores)])
    assert table.columns == ("100% val", "100% test-night")
    assert [str(cell) for cell in table.rows["semires"]] == ["50.00", "50.00"]
    assert "## [red] my.jsonl\n" in as_markdown([table], [])
