from typing import Any

from rich.console import Console

from semires.pipeline.reporting.scores_table import scores_notes, scores_tables
from semires.pipeline.scoring.scores import RunScores

PRECISION = {"0.5": 50.0, "0.6": 40.0, "0.7": 30.0, "0.8": 20.0, "0.9": 1.0}


def values(oiou: float, low: float | None = None, **more: Any) -> dict[str, Any]:
    interval = None if low is None else [low, oiou + 2]
    return {
        **{"oiou": oiou, "miou": 5.0, "precision": PRECISION, "num_samples": 10834},
        **({"intervals": {"oiou": interval, "miou": None, "precision": dict.fromkeys(PRECISION)}} | more),
    }


def scores(by_split: dict[str, Any], **more: Any) -> RunScores:
    return RunScores(**({"split": "refcoco", "method": "baseline", "labeled": 0.01, "by_split": by_split} | more))


def lines(found: RunScores, width: int = 80) -> list[str]:
    console = Console(width=width)
    with console.capture() as capture:
        for table in scores_tables(found):
            console.print(table)
    return [line.rstrip() for line in capture.get().splitlines()]


def test_scores_tables__splits_with_their_subsets() -> None:
    of_subset = {"smallest 10%": values(7.5, 6.0), "left or right": values(9.0)}
    found = lines(scores({"val": values(50.126, 48.04, subsets=of_subset), "testA": values(60.0, 55.0)}))
    assert found[0] == "RefCOCO: Baseline, per cent"
    assert found[1].split() == ["split", "expressions", "oIoU", "95%", "mIoU", *(f"P@{at}" for at in PRECISION)]
    rest = ["5.00", "50.00", "40.00", "30.00", "20.00", "1.00"]
    assert [line.split() for line in found[2:]] == [
        ["val", "10834", "50.13", "48.0–52.1", *rest],
        ["smallest", "10%", "10834", "7.50", "6.0–9.5", *rest],
        ["left", "or", "right", "10834", "9.00", "–", *rest],
        ["testA", "10834", "60.00", "55.0–62.0", *rest],
    ]
    assert max(map(len, found)) <= 80


def test_scores_tables__native_below() -> None:
    found = lines(scores({"val": values(50.0, native=values(48.0, 46.0)), "testA": values(60.0)}))
    assert found[4] == "The same at the images' own sizes"
    assert [line.split()[:3] for line in found[6:]] == [["val", "10834", "48.00"]]


def test_scores_tables__other_data_and_scores_of_before() -> None:
    old = {"oiou": 40.0, "miou": 5.0, "precision": PRECISION, "num_samples": 7}
    found = scores({"val": old}, split="refcoco+", trained_on="refcoco")
    assert lines(found)[0] == "RefCOCO+: Baseline trained on RefCOCO, per cent"
    assert lines(found)[2].split()[:4] == ["val", "7", "40.00", "–"]
    assert scores_notes(found) == []


def test_scores_tables__names_are_no_markup() -> None:
    found = scores({"[red]x": values(1.0)}, split="[bold]mine.jsonl")
    assert lines(found)[0] == "[bold]mine.jsonl: Baseline, per cent"
    assert lines(found)[2].startswith("[red]x ")


def test_scores_notes__what_was_measured() -> None:
    data = {"num_refs": 3811, "num_images": 1500, "num_expressions": 10834, "refs_sha256": "0123456789abcdef"}
    whole = values(1.0, data=data, dropped_refs=0, cut_expressions=0)
    lossy = values(1.0, data=data, dropped_refs=12, cut_expressions=1805)
    text = "3811 refs of 1500 images (ref ids sha256 0123456789ab)"
    assert scores_notes(scores({"val": whole, "testA": lossy})) == [
        f"val: {text}",
        f"testA: {text}, without 12 refs that were dropped on loading, 1805 expressions (16.7%) cut at the model's "
        "most tokens",
    ]
