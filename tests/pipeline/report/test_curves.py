from collections.abc import Callable
from pathlib import Path

import pytest

from semires.pipeline.report.curves import Group, learning_curves, mean_line
from semires.pipeline.report.runs import read_run

WORDS = {"name": "curves", "title": "RefShapes, 5% labeled"}


def test_mean_line__where_all_seeds_have_a_value() -> None:
    line = mean_line("a", "tone-0", [[(0, 1.0), (10, 3.0), (20, 9.0)], [(0, 3.0), (10, 4.0)]])
    assert line.points == ((0, 2.0), (10, 3.5))
    assert line.band == ((0, 1.0, 3.0), (10, 3.0, 4.0))
    assert len(line.seeds[0]) == 3
    alone = mean_line("a", "tone-0", [[(0, 1.0)]])
    assert (alone.seeds, alone.band) == ((), ())


def test_learning_curves__mutual_learning_begins_where_burn_in_was_best(write_run: Callable[..., Path]) -> None:
    first = write_run("first", method="supervised", best=40)
    groups = [
        Group(name="Supervised", number=0, runs=(read_run(first, "Supervised"),)),
        Group(
            name="SemiRES",
            number=2,
            runs=tuple(read_run(write_run(f"s{n}", best=50 + n, burn_in=first, seed=n), "SemiRES") for n in (0, 1)),
        ),
    ]
    figure = learning_curves(groups, **WORDS)
    assert figure is not None
    assert figure.legend == (("tone-0", "Supervised"), ("tone-2", "SemiRES"))  # its burn-in is a row of its own
    (chart,) = figure.charts
    assert "SemiRES: 40.00 at step 300, 50.50 at step 600, at most 50.50 at step 600." in chart.drawn
    assert "SemiRES, steps 300: 40.00" in chart.drawn
    assert "mutual learning" in chart.drawn
    assert figure.table is not None
    assert [[cell.value for cell in row.cells] for row in figure.table.rows][1] == ["0", "50.00", "600", "50.00", "600"]
    assert "Bold lines are means over seeds" in figure.caption


def test_learning_curves__draws_a_burn_in_that_is_no_row_and_says_what_is_missing(
    write_run: Callable[..., Path],
) -> None:
    first = write_run("first", method="supervised")
    runs = (
        read_run(write_run("one", burn_in=first), "SemiRES"),
        read_run(write_run("two", burn_in=Path("gone"), finished=False), "SemiRES"),
    )
    figure = learning_curves([Group(name="SemiRES", number=0, runs=runs)], **WORDS)
    assert figure is not None
    assert figure.legend[0] == ("tone-burn-in", "Burn-in")
    assert figure.notes == (
        "The burn-in of 1 runs is not where it was (gone): their lines begin at step 0.",
        "SemiRES, seed 0: not finished, last evaluated at step 300 of 300.",
    )


def test_learning_curves__rows_of_other_burn_ins_have_lines_of_their_own(write_run: Callable[..., Path]) -> None:
    first, other = write_run("first", method="supervised", best=40), write_run("other", method="supervised", best=30)
    groups = [
        Group(name=name, number=number, runs=(read_run(write_run(name, burn_in=burn_in), name),))
        for number, (name, burn_in) in enumerate((("a", first), ("b", first), ("c", other)))
    ]
    figure = learning_curves(groups, **WORDS)
    assert figure is not None
    assert [name for _, name in figure.legend] == ["Burn-in of a, b", "Burn-in of c", "a", "b", "c"]
    assert "Burn-in of c: 28.00 at step 100, 30.00 at step 300" in figure.charts[0].drawn


def test_learning_curves__none_before_anything_was_evaluated(write_run: Callable[..., Path]) -> None:
    run = write_run("run", finished=False)
    (run / "metrics.jsonl").unlink()
    assert learning_curves([Group(name="SemiRES", number=0, runs=(read_run(run, "SemiRES"),))], **WORDS) is None


@pytest.mark.parametrize(("num_rows", "has_bands"), [(5, True), (6, False)])
def test_learning_curves__of_many_rows_without_bands(
    write_run: Callable[..., Path], num_rows: int, has_bands: bool
) -> None:
    groups = [
        Group(
            name=f"row {row}",
            number=row,
            runs=tuple(
                read_run(write_run(f"{row}-{seed}", method="supervised", seed=seed), f"row {row}") for seed in (0, 1)
            ),
        )
        for row in range(num_rows)
    ]
    figure = learning_curves(groups, **WORDS)
    assert figure is not None
    assert ('class="band"' in figure.charts[0].drawn) == ("bands" in figure.caption) == has_bands
