import math
from collections import Counter
from typing import Any

import pytest

from semires.pipeline.reporting.published import parse_numbers, published, published_numbers
from semires.pipeline.scoring.subsets import SMALLEST
from semires.stages.data.checking.counts import PUBLISHED
from semires.stages.data.splits import SPLITS

# Typed from the paper's Table 1, not copied from the file: a line a row, its shares in turn, each with its splits.
TABLE1 = {
    ("refcoco", "Supervised"): "22.37 25.35 19.28  32.26 35.71 28.02  39.46 42.50 35.26  49.40 53.72 44.87",
    ("refcoco", "Baseline"): "30.33 35.18 25.74  42.62 48.86 37.43  51.05 54.75 46.34  60.58 64.98 54.85",
    ("refcoco", "SemiRES"): "40.31 46.48 34.88  50.90 57.54 44.48  54.85 60.39 48.52  61.31 66.64 55.94",
    ("refcoco+", "Supervised"): "20.83 24.53 16.25  24.76 29.11 20.29  28.88 32.41 24.49  37.60 42.32 32.39",
    ("refcoco+", "Baseline"): "25.89 30.42 20.23  30.91 35.83 24.98  36.98 41.44 30.63  46.29 52.46 38.61",
    ("refcoco+", "SemiRES"): "31.99 38.06 25.92  36.49 42.86 28.58  40.41 46.84 33.30  47.00 54.42 38.74",
    ("refcocog", "Supervised"): "18.33 18.69  24.31 24.72  28.23 29.86  37.25 38.62",
    ("refcocog", "Baseline"): "26.02 27.62  30.91 31.51  37.07 38.55  46.67 48.39",
    ("refcocog", "SemiRES"): "31.81 33.40  34.76 36.18  42.15 43.49  47.61 50.11",
}
SHARES = (0.005, 0.01, 0.02, 0.05)
COCO = ("val", "testA", "testB")
ROW: dict[str, Any] = {
    "table": "Table 2",
    "split": "refcoco",
    "row": "IOM",
    "share": 0.01,
    "columns": ["val", "testA"],
    "values": [49.66, 55.26],
}


def test_published__table_1() -> None:
    for (split, row), line in TABLE1.items():
        expected = list(map(float, line.split()))
        columns = SPLITS[split].evaluation
        assert [published("Table 1", split, row, share, name) for share in SHARES for name in columns] == expected
    of_table = [numbers for numbers in published_numbers() if numbers.table == "Table 1"]
    assert len(of_table) == len(TABLE1) * len(SHARES)


def test_published__numbers_of_each_table() -> None:
    counts = Counter[str]()
    for numbers in published_numbers():
        counts[numbers.table] += len(numbers.values)
    assert counts == {
        "Table 1": 96,
        "Table 2": 15,
        "Table 3": 27,
        "Table 4": 3,
        "Table 5": 18,
        "Table 6": 18,
        "Table 7": 9,
        "Table 8": 3,
        "Table 9": 12,
        "Figure 6": 27,
        "Labeling cost": 3,
    }


@pytest.mark.parametrize(
    ("table", "row", "share", "expected"),
    [
        ("Table 2", "Baseline", 0.01, (42.62, 48.86, 37.43)),
        ("Table 2", "CPI-O", 0.01, (45.23, 52.53, 38.30)),
        ("Table 3", "IOM 0.6", 0.01, (49.36, 56.35, 42.94)),
        ("Table 3", "CPI 0.5", 0.01, (49.38, 56.40, 43.07)),
        ("Table 3", "CPI-U 0.7", 0.01, (50.90, 57.54, 44.48)),
        ("Table 4", "Baseline + confidence filtering", 0.01, (42.99, 48.78, 35.96)),
        ("Table 5", "MLT+DA+PWA", 0.01, (43.09, 49.72, 37.10)),
        ("Table 6", "SemiRES", 0.3, (68.54, 70.62, 63.90)),
        ("Table 6", "Fully supervised", 1.0, (72.73, 75.82, 68.79)),
        ("Table 7", "SemiRES", 0.01, (43.57, 49.05, 39.05)),
        ("Table 8", "SEEM", 0.01, (47.61, 56.28, 43.62)),
    ],
)
def test_published__other_tables(table: str, row: str, share: float, expected: tuple[float, ...]) -> None:
    assert tuple(published(table, "refcoco", row, share, column) for column in COCO) == expected


def test_published__tables_that_repeat_a_number_agree() -> None:
    """CPI-U at 0.7 is SemiRES with all parts at 1%; the baseline is mutual learning with augmentation."""
    for column in COCO:
        semires, baseline = (published("Table 1", "refcoco", row, 0.01, column) for row in ("SemiRES", "Baseline"))
        same = [("Table 2", "CPI-U"), ("Table 3", "CPI-U 0.7"), ("Table 5", "all")]
        assert {published(table, "refcoco", row, 0.01, column) for table, row in same} == {semires}
        same = [("Table 2", "Baseline"), ("Table 5", "MLT+DA")]
        assert {published(table, "refcoco", row, 0.01, column) for table, row in same} == {baseline}


def test_published__table_9_by_the_names_of_the_subsets() -> None:
    columns = [f"{split} smallest {share:.0%}" for share in SMALLEST for split in COCO]
    found = [published("Table 9", "refcoco", "SemiRES", 0.01, column) for column in columns]
    assert found == [20.45, 27.21, 17.04, 24.98, 29.76, 18.05]


def test_published__figure_6_counts_every_unlabeled_ref() -> None:
    labeled = {"refcoco": 432, "refcoco+": 448, "refcocog": 429}
    rows = [numbers for numbers in published_numbers() if numbers.table == "Figure 6"]
    for numbers in rows:
        refs = PUBLISHED[numbers.split]["train"].refs
        assert sum(numbers.values) == refs - labeled[numbers.split]
        assert (numbers.columns, numbers.unit) == (("positive", "negative", "none"), "refs")
    assert published("Figure 6", "refcoco", "CPI-U", 0.01, "positive") == 15_181


def test_published__labeling_cost() -> None:
    assert published("Labeling cost", "refcoco", "Annotation", None, "a mask") == 79.1
    assert [published("Labeling cost", "refcoco", "Annotation", share, "all masks") for share in (0.01, 1.0)] == [
        0.5,
        45.8,
    ]


def test_published__share_of_a_table_that_has_one() -> None:
    assert published("Table 2", "refcoco", "IOM", None, "val") == 49.66
    assert published("Table 6", "refcoco", "Fully supervised", None, "val") == 72.73
    assert published("Table 6", "refcoco", "SemiRES", None, "val") is None  # of which of five?


@pytest.mark.parametrize(("split", "share"), [("refshapes", 0.05), ("refcocog-google", 0.01), ("refcoco", 0.1)])
def test_published__none_where_the_paper_has_none(split: str, share: float) -> None:
    assert published("Table 1", split, "SemiRES", share, "val") is None


def test_published__none_for_what_is_in_no_table() -> None:
    assert published("Table 1", "refcoco", "SemiRES-CC", 0.01, "val") is None
    assert published("Table 10", "refcoco", "SemiRES", 0.01, "val") is None
    assert published("Table 1", "refcocog", "SemiRES", 0.01, "testA") is None


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method": "iom"}, "unexpected keyword argument 'method'"),
        ({"values": [49.66]}, "a value for each of the columns"),
        ({"columns": ["val", "val"]}, "which differ"),
        ({"columns": [], "values": []}, "a value for each"),
        ({"columns": 3}, "not iterable"),
        ({"row": ""}, "expected texts"),
        ({"split": 1}, "expected texts"),
        ({"share": 1.5}, "at most 1"),
        ({"share": True}, "finite numbers"),
        ({"values": ["49.66", 55.26]}, "finite numbers"),
        ({"values": [math.nan, 55.26]}, "finite numbers"),
    ],
)
def test_parse_numbers__other_content(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_numbers({"numbers": [ROW | changed]})


def test_parse_numbers__missing_field() -> None:
    with pytest.raises(ValueError, match=r"expected a published row, found .*'columns'"):
        parse_numbers({"numbers": [{name: value for name, value in ROW.items() if name != "columns"}]})
    with pytest.raises(ValueError, match=r"expected a published row, found .*'table'"):
        parse_numbers({"numbers": [{name: value for name, value in ROW.items() if name != "table"}]})


def test_parse_numbers__twice_the_same() -> None:
    other = ROW | {"columns": ["testB", "val"]}
    with pytest.raises(ValueError, match=r"expected each number once, found two of .*'IOM', 0.01, 'val'"):
        parse_numbers({"numbers": [ROW, other]})
    assert len(parse_numbers({"numbers": [ROW, other | {"share": 0.02}]})) == 2


def test_parse_numbers__no_tables() -> None:
    with pytest.raises(ValueError, match=r"expected tables \[\[numbers\]\] and nothing else, found more"):
        parse_numbers({"more": 1})
