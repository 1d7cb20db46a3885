import json
from collections.abc import Callable
from pathlib import Path

from semires.pipeline.report.curves import Group
from semires.pipeline.report.labels import label_quality, refinement_outcomes
from semires.pipeline.report.runs import read_run

WORDS = {"name": "labels", "title": "RefShapes, 5% labeled"}


def groups_of(write_run: Callable[..., Path]) -> list[Group]:
    rows = {"Supervised": "supervised", "Baseline": "baseline", "SemiRES": "semires"}
    return [
        Group(
            name=row,
            number=number,
            runs=tuple(
                read_run(write_run(f"{row}-{seed}", method=method, burn_in=Path("gone"), seed=seed), row)
                for seed in (0, 1)
            ),
        )
        for number, (row, method) in enumerate(rows.items())
    ]


def test_label_quality__before_and_after_of_what_is_refined(write_run: Callable[..., Path]) -> None:
    figure = label_quality(groups_of(write_run), **WORDS)
    assert figure is not None
    assert [chart.heading for chart in figure.charts] == ["Baseline", "SemiRES"]
    assert ["after" in chart.drawn for chart in figure.charts] == [False, True]
    assert "0.48 at the last; mean over 2 runs." in figure.charts[1].drawn
    assert figure.table is not None
    assert [[cell.value for cell in row.cells] for row in figure.table.rows] == [
        ["0.41 → 0.43", "–", "–", "–", "–"],
        ["0.41 → 0.43", "0.44 → 0.48", "0.60 → 0.60", "0.30 → 0.30", "0.10 → 0.10"],
    ]


def test_refinement_outcomes__means_over_mutual_learning(write_run: Callable[..., Path]) -> None:
    figure = refinement_outcomes(groups_of(write_run), **WORDS)
    assert figure is not None
    assert "SemiRES: 30.0% positive, 10.0% negative, 60.0% none." in figure.charts[0].drawn
    assert "Baseline" not in figure.charts[0].drawn
    assert figure.table is not None
    assert [[cell.value for cell in row.cells] for row in figure.table.rows] == [["30.0", "10.0", "60.0"]]


def test_labels__none_where_nobody_knows_the_masks(write_run: Callable[..., Path]) -> None:
    run = write_run("run", burn_in=Path("gone"))
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    known = ("label_iou_before", "label_iou_after", "improved", "worsened")
    plain = [{name: value for name, value in line.items() if name not in known} for line in lines]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in plain), encoding="utf-8")
    groups = [Group(name="SemiRES", number=0, runs=(read_run(run, "SemiRES"),))]
    assert label_quality(groups, **WORDS) is None
    assert refinement_outcomes(groups, **WORDS) is None
