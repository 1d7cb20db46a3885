import pytest

from semires.pipeline.report.content import CellView
from semires.pipeline.report.tables import first_split_columns, gain_table, interval_figure, score_table
from semires.pipeline.study.results import Cell, Gain, SplitTable

NONE = Gain(mean=None, interval=None, published=None)


def table_of(split: str = "refcoco") -> SplitTable:
    return SplitTable(
        split=split,
        columns=("1% val", "1% testA"),
        rows={
            "Supervised": (
                Cell(measured=(31.0, 33.0), interval=(30.25, 33.75), published=32.26),
                Cell(measured=(), interval=None, published=None),
            ),
            "SemiRES": (
                Cell(measured=(50.0,), interval=None, published=50.9),
                Cell(measured=(), interval=None, published=57.54),
            ),
        },
        against="Supervised",
        gains={"SemiRES": (Gain(mean=18.0, interval=(-0.5, 20.25), published=18.64), NONE)},
    )


def test_score_table__measured_beside_published() -> None:
    found = score_table(table_of(), name="scores")
    assert found.caption == (
        "RefCOCO: oIoU in per cent; mean and standard deviation over seeds, the interval that holds 95%, the "
        "paper's number"
    )
    supervised, semires = (row.cells for row in found.rows)
    assert supervised[0] == CellView(value="32.00", spread="± 1.41", interval="30.2–33.8", published="paper 32.26")
    assert semires[0] == CellView(value="50.00", published="paper 50.90")
    assert (semires[1].value, semires[1].published) == ("–", "paper 57.54")


def test_score_table__no_other_data_sets_number_passes_for_its_own() -> None:
    found = score_table(table_of("refshapes"), name="scores")
    assert found.caption.endswith("the paper's number on RefCOCO")
    assert found.rows[1].cells[0].published == "paper, RefCOCO: 50.90"


def test_gain_table__signs_and_nothing_where_nothing_was_measured() -> None:
    found = gain_table(table_of(), name="gains")
    assert found is not None
    (row,) = found.rows
    assert (row.name, row.tone) == ("SemiRES", "tone-1")  # its colour in the charts
    assert [(cell.value, cell.interval, cell.published) for cell in row.cells] == [
        ("+18.00", "-0.5 to +20.2", "paper +18.64"),
        ("–", "", ""),
    ]


def test_interval_figure__gains_with_what_is_published() -> None:
    figure = interval_figure(table_of(), name="intervals")
    assert figure is not None
    (chart,) = figure.charts  # of val alone
    assert "SemiRES: 18.00 (95%: -0.50 to 20.25), published 18.64." in chart.drawn
    assert figure.caption.endswith("Open diamonds: the paper's number.")


def test_interval_figure__none_where_nothing_was_measured() -> None:
    cell = Cell(measured=(), interval=None, published=3.0)
    table = SplitTable(split="refcoco", columns=("val",), rows={"a": (cell,)}, against=None, gains={})
    assert interval_figure(table, name="intervals") is None


@pytest.mark.parametrize(
    ("columns", "first"),
    [
        (("0.5% val", "0.5% testA", "1% val", "1% testA"), [0, 2]),
        (("val", "testA"), [0]),
        (("val smallest 5%", "testA smallest 5%", "val smallest 10%"), [0, 2]),
        ((), []),
    ],
)
def test_first_split_columns(columns: tuple[str, ...], first: list[int]) -> None:
    assert first_split_columns(columns) == first
