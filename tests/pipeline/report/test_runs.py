import json
from collections.abc import Callable
from pathlib import Path

import pytest

from semires.pipeline.report.runs import best_line, read_run, share_text
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig


def test_read_run__with_the_burn_in_that_it_names(write_run: Callable[..., Path]) -> None:
    first = write_run("burn-in", method="supervised", best=40)
    run = read_run(write_run("run", burn_in=first), "SemiRES")
    assert (run.row, run.share, run.burn_in_folder, run.burn_in_steps) == ("SemiRES", "5%", first, 300)
    assert [line["val"]["oiou"] for line in run.burn_in] == [38, 39, 40]
    assert run.best is not None
    assert run.best["step"] == 300


def test_read_run__a_burn_in_of_its_own_one_that_is_gone_and_none(write_run: Callable[..., Path]) -> None:
    run = write_run("run")
    write_run("run/burn-in", method="supervised")
    (run / "sources.json").write_text(json.dumps({"burn_in": {"location": "burn-in"}}), encoding="utf-8")
    assert read_run(run, "").burn_in_folder == run / "burn-in"
    assert read_run(run, "").burn_in_steps == 300
    gone = read_run(write_run("other", burn_in=Path("nowhere")), "")
    assert (gone.burn_in_folder, gone.burn_in, gone.burn_in_steps) == (Path("nowhere"), (), 0)
    assert read_run(write_run("first", method="supervised"), "").burn_in_folder is None


def test_read_run__unfinished(write_run: Callable[..., Path]) -> None:
    run = write_run("run", finished=False)
    (run / "metrics.jsonl").unlink()
    found = read_run(run, "")
    assert (found.result, found.metrics, found.best) == (None, (), None)


def test_read_run__refuses_what_is_no_run(write_run: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a run of `semires train`, found no .*config.json"):
        read_run(tmp_path, "")
    run = write_run("run")
    (run / "metrics.jsonl").write_text('{"step": 3}\n', encoding="utf-8")
    with pytest.raises(InputError, match="found a line without a step or scores on val"):
        read_run(run, "")


def test_best_line__the_first_of_equals() -> None:
    lines = tuple({"step": step, "val": {"oiou": oiou}} for step, oiou in ((1, 3.0), (2, 5.0), (3, 5.0)))
    assert best_line(lines) == lines[1]
    assert best_line(()) is None


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (TrainConfig(labeled=0.005), "0.5%"),
        (TrainConfig(labeled_seed=3), "1% (draw 3)"),
        (TrainConfig(labeled_list="lists/mine.txt"), "list-mine"),
    ],
)
def test_share_text(config: TrainConfig, text: str) -> None:
    assert share_text(config) == text
