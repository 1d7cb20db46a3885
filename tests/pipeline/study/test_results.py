import json
from pathlib import Path

import pytest

from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.study.results import Cell, Gain, Reference, SplitTable, StudyResult, StudyRun


@pytest.mark.parametrize(
    ("measured", "published", "expected"),
    [
        ((), None, "–"),
        ((), 50.9, "– (50.90)"),
        ((12.346,), None, "12.35"),
        ((12.346,), 50.9, "12.35 (50.90)"),
        ((1.0, 2.0, 3.0), None, "2.00 ± 1.00"),
        ((1.0, 2.0, 3.0), 4.5, "2.00 ± 1.00 (4.50)"),
    ],
)
def test_cell__text(measured: tuple[float, ...], published: float | None, expected: str) -> None:
    assert str(Cell(measured=measured, interval=None, published=published)) == expected


@pytest.mark.parametrize(
    ("mean", "interval", "published", "expected"),
    [
        (None, None, None, "–"),
        (None, None, 18.64, "– [+18.64]"),
        (-0.456, (-1.0, 0.1), None, "-0.46 (-1.00 to +0.10)"),
        (20.0, (19.0, 21.0), 18.64, "+20.00 (+19.00 to +21.00) [+18.64]"),
    ],
)
def test_gain__text(
    mean: float | None, interval: tuple[float, float] | None, published: float | None, expected: str
) -> None:
    assert str(Gain(mean=mean, interval=interval, published=published)) == expected


def test_study_result__holds_every_number() -> None:
    scores = RunScores(split="refshapes", method="semires", labeled=0.05, by_split={"val": {"oiou": 50.0}})
    run = StudyRun(
        row="a", split="refshapes", share=0.05, seed=3, folder=Path("r") / "x", burn_in=Path("b"), scores=scores
    )
    table = SplitTable(
        split="refshapes",
        columns=("val",),
        rows={"a": (Cell(measured=(50.0,), interval=(49.0, 51.0), published=None),)},
        against=None,
        gains={},
        reference=Reference(title="paper", rows={"a": 50.9}),
    )
    result = StudyResult(name="n", title="t", table="Table 1", tables=(table,), runs=(run,), not_measured=("why",))
    found = json.loads(json.dumps(result.to_dict()))
    assert found["tables"][0]["rows"]["a"] == [{"measured": [50.0], "interval": [49.0, 51.0], "published": None}]
    assert found["tables"][0]["reference"] == {"title": "paper", "rows": {"a": 50.9}}
    (of_run,) = found["runs"]
    assert (of_run["folder"], of_run["burn_in"], of_run["seed"]) == ("r/x", "b", 3)
    assert of_run["scores"]["by_split"] == {"val": {"oiou": 50.0}}
    assert found["not_measured"] == ["why"]
