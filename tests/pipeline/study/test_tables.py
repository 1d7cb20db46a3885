from rich.console import Console

from semires.pipeline.study.results import Cell, Gain, Reference, SplitTable, StudyResult
from semires.pipeline.study.tables import as_markdown, as_rich


def cell(*measured: float, published: float | None = None) -> Cell:
    return Cell(measured=measured, interval=None, published=published)


def result_of(table: SplitTable, *not_measured: str) -> StudyResult:
    return StudyResult(name="n", title="A title", table=None, tables=(table,), runs=(), not_measured=not_measured)


REFCOCO = SplitTable(
    split="refcoco",
    columns=("1% val", "1% testA"),
    rows={"Sup": (cell(30.0, published=32.26), cell()), "a|b [c] *d*": (cell(50.0, 52.0, published=50.9), cell(40.0))},
    against="Sup",
    gains={
        "a|b [c] *d*": (
            Gain(mean=20.0, interval=(19.0, 21.0), published=18.64),
            Gain(mean=None, interval=None, published=None),
        )
    },
    remarks=("A remark",),
)
REFSHAPES = SplitTable(
    split="refshapes",
    columns=("val",),
    rows={"Sup": (cell(42.0),), "Ours": (cell(50.0),), "New": (cell(60.0),)},
    against="Sup",
    gains={
        "Ours": (Gain(mean=8.0, interval=(7.0, 9.0), published=None),),
        "New": (Gain(mean=18.0, interval=(17.0, 19.0), published=None),),
    },
    reference=Reference(title="paper: RefCOCO 1% val", rows={"Sup": 32.26, "Ours": 50.9, "New": None}),
)


def test_as_markdown__a_users_text_is_no_markup() -> None:
    text = as_markdown(result_of(REFCOCO, "x: [link](y) | z"))
    assert text.startswith("# A title\n")
    assert "| Sup | 30.00 (32.26) | – |" in text
    assert "| a\\|b \\[c] \\*d\\* | 51.00 ± 1.41 (50.90) | 40.00 |" in text
    assert "| a\\|b \\[c] \\*d\\* | +20.00 (+19.00 to +21.00) \\[+18.64] | – |" in text
    assert "\nA remark.\n" in text
    assert "- x: \\[link](y) \\| z" in text


def test_as_markdown__the_papers_numbers_on_other_data_have_a_column_of_their_own() -> None:
    lines = as_markdown(result_of(REFSHAPES)).splitlines()
    assert "## RefShapes (embedded benchmark; not comparable with the paper)" in lines
    assert "|  | val | paper: RefCOCO 1% val |" in lines
    assert "| Sup | 42.00 | 32.26 |" in lines
    assert "| New | 60.00 | – |" in lines
    assert "| Ours | +8.00 (+7.00 to +9.00) | +18.64 |" in lines
    assert "| New | +18.00 (+17.00 to +19.00) | – |" in lines
    assert "Not measured" not in "\n".join(lines)


def test_as_rich__scores_and_gains() -> None:
    console = Console(width=200, markup=False)
    with console.capture() as captured:
        for table in as_rich(result_of(REFCOCO)):
            console.print(table)
    out = captured.get()
    assert "RefCOCO, oIoU %" in out
    assert "RefCOCO, points above Sup (95%)" in out
    assert "a|b [c] *d*" in out
    assert out.count("A remark") == 1
