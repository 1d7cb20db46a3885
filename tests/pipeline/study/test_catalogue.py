from pathlib import Path

import pytest
import torch

from semires.pipeline.commands.study import RECIPES
from semires.pipeline.reporting.published import published_numbers
from semires.pipeline.study.catalogue import find_study, recipe_names
from semires.pipeline.study.cells import study_runs
from semires.stages.data.errors import InputError

CPU = torch.device("cpu")


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("name", recipe_names())
def test_find_study__every_recipe_has_runs_and_knows_its_table(name: str, full: bool) -> None:
    study = find_study(name, full=full)
    runs = study_runs(study, CPU)
    assert {run.row.name for run in runs} == {row.name for row in study.rows}
    assert all(spec.config.split in study.splits for spec in (run.spec for run in runs))
    known = {(numbers.table, numbers.row) for numbers in published_numbers()}
    for row in study.rows:
        assert row.published is None or (row.table or study.table, row.published) in known
    if full and study.table is not None:
        # Each row that the paper has is asked for at shares that the paper has.
        shares = {(numbers.table, numbers.split, numbers.row, numbers.share) for numbers in published_numbers()}
        for run in runs:
            if run.row.published is not None:
                assert (run.row.table or study.table, run.split, run.row.published, run.share) in shares


def test_recipe_names__are_those_that_the_help_names() -> None:
    numbers = {f"table{number}" for number in range(1, 8)}
    assert RECIPES == "table1 … table7, table9, figure6, figure7"
    assert set(recipe_names()) == numbers | {"table9", "figure6", "figure7"}


def test_studies__share_their_runs() -> None:
    """Table 2's CPI-U is Table 1's SemiRES, and so is the last row of Table 5."""
    specs = {}
    for name, row in (("table1", "SemiRES"), ("table2", "CPI-U"), ("table3", "CPI-U 0.7"), ("table5", "all")):
        (specs[name],) = (
            run.spec
            for run in study_runs(find_study(name), CPU)
            if (run.row.name, run.split, run.seed) == (row, "refshapes", 0)
        )
    assert len({spec.address for spec in specs.values()}) == len(set(specs.values())) == 1


def test_find_study__a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "a [b] study.toml"
    path.write_text('splits = ["refshapes"]\n[[rows]]\nname = "a"\n')
    assert find_study(str(path)).name == "a [b] study"
    with pytest.raises(
        InputError, match=r"expected a study \(figure6, .*table9\) or a .toml file of your own, found 'x'"
    ):
        find_study("x")
