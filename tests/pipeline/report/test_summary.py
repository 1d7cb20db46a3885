import dataclasses

from semires.pipeline.report.summary import summary
from semires.pipeline.study.results import Cell, Gain, SplitTable, StudyResult


def result_of(*tables: SplitTable) -> StudyResult:
    return StudyResult(name="table1", title="Table 1", table="Table 1", tables=tables, runs=())


def with_gains(split: str, gains: dict[str, Gain]) -> SplitTable:
    cell = Cell(measured=(40.0,), interval=None, published=None)
    return SplitTable(
        split=split,
        columns=("1% val",),
        rows={"Supervised": (cell,), **dict.fromkeys(gains, (cell,))},
        against="Supervised",
        gains={row: (gain,) for row, gain in gains.items()},
    )


def gain(mean: float, *, low: float = 0.1, published: float | None = None) -> Gain:
    return Gain(mean=mean, interval=(low, mean + 1), published=published)


def test_summary__gains_in_words() -> None:
    table = with_gains("refcoco", {"Baseline": gain(-2, low=-3), "SemiRES": gain(8.2, published=18.64)})
    assert summary([result_of(table)]) == (
        "RefCOCO, 1% val: SemiRES is 8.20 points above Supervised (95%: +0.10 to +9.20); the paper's number: +18.64.",
        "RefCOCO, 1% val: Baseline is 2.00 points below Supervised (95%: -3.00 to -1.00).",
    )


def test_summary__says_where_two_are_not_told_apart() -> None:
    (sentence,) = summary([result_of(with_gains("refshapes", {"SemiRES": gain(0.5, low=-1, published=8.28)}))])
    assert sentence == (
        "RefShapes, 1% val: SemiRES is 0.50 points above Supervised (95%: -1.00 to +1.50); the interval holds 0, so "
        "the two are not told apart; the paper's number on RefCOCO: +8.28."
    )


def test_summary__of_many_rows_the_highest_and_the_lowest() -> None:
    table = with_gains("refshapes", {f"row {number}": gain(number) for number in range(1, 6)})
    assert summary([result_of(table)]) == (
        "RefShapes, 1% val: row 5 is 5.00 points above Supervised (95%: +0.10 to +6.00), the highest of 5 rows.",
        "RefShapes, 1% val: row 1 is 1.00 points above Supervised (95%: +0.10 to +2.00), the lowest.",
    )


def test_summary__of_many_shares_says_which_it_leaves_out() -> None:
    table = with_gains("refshapes", {"SemiRES": gain(1)})
    many = dataclasses.replace(
        table,
        columns=tuple(f"{share}% val" for share in range(1, 7)),
        rows={row: cells * 6 for row, cells in table.rows.items()},
        gains={row: gains * 6 for row, gains in table.gains.items()},
    )
    found = summary([result_of(many)])
    assert (len(found), found[-1]) == (5, "RefShapes: 5% val, 6% val are in the table below.")


def test_summary__scores_where_nothing_to_compare_with_was_measured() -> None:
    table = with_gains("refshapes", {"SemiRES": Gain(mean=None, interval=None, published=None)})
    nothing = Cell(measured=(), interval=None, published=None)
    table = dataclasses.replace(table, rows=table.rows | {"Supervised": (nothing,)})
    assert summary([result_of(table)]) == ("RefShapes, 1% val: SemiRES has 40.00% oIoU, the only row.",)


def test_summary__without_gains_the_best_row_and_nothing_of_what_was_not_measured() -> None:
    rows = {
        "a": (Cell(measured=(40.0, 42.0), interval=(39.5, 42.5), published=50.9),),
        "b": (Cell(measured=(30.0,), interval=None, published=None),),
        "c": (Cell(measured=(), interval=None, published=57.0),),
    }
    table = SplitTable(split="refcoco", columns=("val",), rows=rows, against=None, gains={})
    assert summary([result_of(table)]) == (
        "RefCOCO, val: a has 41.00% oIoU (95%: 39.50 to 42.50), the highest of 2 rows; the paper's number: 50.90.",
    )
    nothing = SplitTable(split="refcoco", columns=("val",), rows={"c": rows["c"]}, against=None, gains={})
    assert summary([result_of(nothing)]) == ()
