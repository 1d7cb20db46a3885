from collections.abc import Callable
from pathlib import Path

import pytest

from semires.pipeline.report.sources import read_sources
from semires.stages.data.errors import InputError


def test_read_sources__runs_and_studies_once_each(write_run: Callable[..., Path], tmp_path: Path) -> None:
    run, mine = write_run("run"), tmp_path / "mine.toml"
    (tmp_path / "x").mkdir()
    mine.write_text('splits = ["refshapes"]\n[[rows]]\nname = "SemiRES"\n', encoding="utf-8")
    found = read_sources([str(run), "table2", str(mine), str(run), f"{run.parent}/x/../run"], num_seeds=4)
    assert found.runs == (run,)
    assert [(study.name, study.seeds) for study in found.studies] == [("table2", (0, 1, 2, 3)), ("mine", (0, 1, 2, 3))]
    assert "refcoco" in read_sources(["table2"], full=True).studies[0].splits


def test_read_sources__refuses_what_is_neither(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected the folder of a run, or a study \(figure6, .*\), found 'table99'"):
        read_sources(["table99"])
    with pytest.raises(InputError, match="expected the folder of a run"):
        read_sources([str(tmp_path)])
    with pytest.raises(InputError, match="found no file"):
        read_sources([str(tmp_path / "gone.toml")])
