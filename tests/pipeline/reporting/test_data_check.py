from pathlib import Path
from typing import Any

from rich.console import Console

from semires.pipeline.reporting.data_check import NUM_NAMED, counts_table, finding_lines
from semires.stages.data.checking.check import DataCheck
from semires.stages.data.checking.counts import SplitCounts
from semires.stages.data.checking.findings import Finding


def counts(refs: int, images: int, expressions: int) -> SplitCounts:
    return SplitCounts(refs=refs, images=images, expressions=expressions)


def check(*findings: Finding, **changes: Any) -> DataCheck:
    values: dict[str, Any] = {
        "name": "a [b] set",
        "images": Path("images"),
        "counts": {"train": counts(1_000, 2, 3)},
        "published": {"train": counts(1_000, 4, 3), "val": counts(5, 6, 7)},
        "findings": findings,
    }
    return DataCheck(**(values | changes))


def rows(table: Any) -> list[list[str]]:
    console = Console(width=100, markup=False)
    with console.capture() as captured:
        console.print(table)
    return [line.strip("│ ").split("│") for line in captured.get().splitlines() if line.startswith("│")]


def test_counts_table__published_where_it_differs() -> None:
    train, val = rows(counts_table(check()))
    assert [cell.strip() for cell in train] == ["train", "1,000", "2 (4)", "3"]
    assert [cell.strip() for cell in val] == ["val", "0 (5)", "0 (6)", "0 (7)"]


def test_finding_lines__wrong_first() -> None:
    lines = list(
        finding_lines(
            check(
                Finding(kind="a", is_wrong=False, text="one thing", of="images", ids=tuple(range(NUM_NAMED + 1))),
                Finding(kind="b", is_wrong=True, text="another", ids=(7, 8)),
            )
        )
    )
    assert lines == [
        "wrong: another (ref ids 7, 8)",
        "information: one thing (image ids 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, …)",
        "a [b] set: 1 finding wrong, 1 finding for information",
    ]


def test_finding_lines__all_ids_and_all_images() -> None:
    damaged = [
        Finding(kind="damaged_image", is_wrong=True, text=f"{number}.jpg: cut", of="images", ids=(number,))
        for number in range(NUM_NAMED + 2)
    ]
    short = list(finding_lines(check(*damaged)))
    assert len(short) == NUM_NAMED + 2
    assert short[0] == "wrong: 0.jpg: cut"
    assert short[-2] == "wrong: 2 more images cannot be read; --all names them"
    every = list(finding_lines(check(*damaged), every=True))
    assert every[-2] == "wrong: 11.jpg: cut"
    assert every[-1] == "a [b] set: 12 findings wrong, nothing for information"


def test_finding_lines__nothing_published() -> None:
    assert next(finding_lines(check(published=None))) == "no counts are published of a [b] set: none were compared"
