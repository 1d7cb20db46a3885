from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.study.description import Row, Study, parse_study, read_study
from semires.stages.data.errors import InputError

ROW = {"name": "Baseline", "method": "baseline"}
CONTENT: dict[str, Any] = {"splits": ["refshapes"], "rows": [ROW]}


def test_parse_study__all_of_it() -> None:
    rows = [
        ROW | {"published": "Baseline", "table": "Table 1"},
        {"name": "B", "match": {"strategy": "iom"}, "mutual": {"alpha": 0.9}, "only": {"refshapes": {"labeled": 0.5}}},
    ]
    found = parse_study(
        "mine",
        {
            "title": "Mine",
            "splits": ["refcoco", "refshapes"],
            "seeds": [3, 5],
            "shares": {"refcoco": [0.01]},
            "settings": {"precision": "fp32"},
            "table": "Table 2",
            "against": "B",
            "subsets": ["smallest 5%"],
            "shows": "curves",
            "only_here": True,
            "rows": rows,
        },
    )
    assert found == Study(
        name="mine",
        title="Mine",
        splits=("refcoco", "refshapes"),
        rows=(
            Row(name="Baseline", settings={"method": "baseline"}, published="Baseline", table="Table 1"),
            Row(
                name="B",
                settings={"match": {"strategy": "iom"}},
                mutual={"alpha": 0.9},
                only={"refshapes": {"labeled": 0.5}},
            ),
        ),
        shares={"refcoco": (0.01,)},
        seeds=(3, 5),
        settings={"precision": "fp32"},
        table="Table 2",
        against="B",
        subsets=("smallest 5%",),
        shows="curves",
        only_here=True,
    )


def test_parse_study__a_number_of_seeds_and_shares_for_all() -> None:
    found = parse_study("mine", CONTENT | {"seeds": 3, "shares": [0.05, 0.1]})
    assert (found.title, found.seeds, found.shares) == ("mine", (0, 1, 2), {"refshapes": (0.05, 0.1)})


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"rows": "all"}, "mine: rows: expected tables"),
        ({"rows": []}, "expected a data set, a row and a seed or more"),
        ({"rows": [{"method": "baseline"}]}, "mine, row 1: expected name, found none"),
        ({"rows": [ROW, ROW]}, "expected rows that differ, found 'Baseline' twice"),
        ({"rows": [ROW | {"name": 3}]}, "mine, row 1: name: expected text, found 3"),
        ({"rows": [ROW | {"only": {"refshapes": 0.5}}]}, "mine, row 1: only: expected a table"),
        ({"splits": ["refcoco2"]}, "--split: expected one of"),
        ({"splits": "refcoco"}, "mine: splits: expected a list, each text, found 'refcoco'"),
        ({"seeds": [0, 0]}, "expected seeds that differ"),
        ({"seeds": 0}, "expected a data set, a row and a seed or more"),
        ({"seeds": 1.5}, "mine: seeds: expected a list"),
        ({"shares": [2.0]}, "mine: shares: expected shares above 0 and at most 1"),
        ({"against": "SemiRES"}, "mine: against: expected one of the rows 'Baseline', found 'SemiRES'"),
        ({"shows": "all"}, "mine: shows: expected one of scores, labels, curves, found 'all'"),
        ({"name": "other"}, "mine: expected no name, for the file's is the study's, found 'other'"),
        ({"splits": 3, "shares": [0.1]}, "mine: splits: expected a list"),
        ({"splits": [["refcoco"]], "shares": [0.1]}, "mine: splits: expected"),
        ({"shares": {"refshape": [0.1]}}, "--split: expected one of .*found 'refshape'"),
        ({"rows": [ROW | {"only": {"refshape": {"labeled": 0.5}}}]}, "--split: expected one of .*found 'refshape'"),
        ({"rows": [ROW | {"labeled": 0.1}], "shares": [0.2]}, "mine: shares: expected none of refshapes, for each row"),
        ({"subsets": ["smallest 7%"]}, "mine: subsets: expected some of 'smallest 5%', .*found 'smallest 7%'"),
        ({"subsets": ["6+ words"] * 2}, "mine: expected subsets that differ"),
        ({"table": "Table 22"}, "mine: table: expected one of Table 1, .*found 'Table 22'"),
        ({"rows": [ROW | {"published": "Baseline"}]}, "mine, row 'Baseline': published: expected a table too"),
        (
            {"rows": [ROW | {"published": "Base"}], "table": "Table 1"},
            "mine, row 'Baseline': published: expected a row of Table 1 \\('Supervised', .*found 'Base'",
        ),
        ({"colour": "red"}, "mine: expected name, title, .*, found 'colour'"),
    ],
)
def test_parse_study__refuses_in_one_line(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected) as caught:
        parse_study("mine", CONTENT | changes)
    assert "\n" not in str(caught.value)


def test_read_study__full_is_over_the_rest(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text('splits = ["refshapes"]\n[[rows]]\nname = "a"\n[full]\nsplits = ["refcoco"]\nseeds = 2\n')
    assert (read_study(path).splits, read_study(path).seeds) == (("refshapes",), (0,))
    assert (read_study(path, full=True).splits, read_study(path, full=True).seeds) == (("refcoco",), (0, 1))


@pytest.mark.parametrize(
    ("content", "expected"),
    [(None, "found no file"), ("a = ", "expected a study in TOML"), ("splits = ['x']", "expected a data|--split")],
)
def test_read_study__files_that_are_none(tmp_path: Path, content: str | None, expected: str) -> None:
    path = tmp_path / "mine.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=expected):
        read_study(path)


@pytest.mark.parametrize("full", ["", "full = 3\n"])
def test_read_study__no_full_in_it(tmp_path: Path, full: str) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(full + 'splits = ["refshapes"]\n[[rows]]\nname = "a"\n')
    with pytest.raises(InputError, match="--full: expected a study with a table"):
        read_study(path, full=True)
