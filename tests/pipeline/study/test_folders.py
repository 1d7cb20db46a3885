import dataclasses
from pathlib import Path

import pytest
import torch

from semires.pipeline.paths import Paths
from semires.pipeline.study.cells import RunSpec, all_specs, study_runs
from semires.pipeline.study.description import parse_study
from semires.pipeline.study.folders import adopt_former, run_folder
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


@pytest.fixture
def specs() -> dict[RunSpec, str]:
    rows = [{"name": method, "method": method} for method in ("supervised", "semires")]
    return all_specs(study_runs(parse_study("mine", {"splits": ["refcoco"], "rows": rows}), torch.device("cpu")))


def begin(folder: Path, config: TrainConfig) -> None:
    run = RunFolder(folder)
    run.start(config, [1])
    run.finish({"val_oiou": 50.0})


def test_adopt_former__runs_of_table_1_move_to_their_addresses(
    tmp_path: Path, specs: dict[RunSpec, str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(data=tmp_path, runs=tmp_path / "runs [b]")
    former = paths.runs / "table1" / "refcoco" / "0.01" / "seed0"
    for spec in specs:
        begin(former / spec.config.method, spec.config)
    adopt_former(paths, specs)
    assert [RunFolder(run_folder(paths, spec)).is_finished for spec in specs] == [True, True]
    assert list(former.iterdir()) == []
    said = [f"{former / spec.config.method} is now {run_folder(paths, spec)}" for spec in specs]
    assert capsys.readouterr().out.splitlines() == said
    adopt_former(paths, specs)  # nothing is left to be done


def test_adopt_former__one_of_other_settings_stays_and_with_it_what_started_from_it(
    tmp_path: Path, specs: dict[RunSpec, str], capsys: pytest.CaptureFixture[str]
) -> None:
    paths = Paths(data=tmp_path, runs=tmp_path / "runs")
    former = paths.runs / "table1" / "refcoco" / "0.01" / "seed0"
    supervised, semires = specs
    begin(former / "supervised", dataclasses.replace(supervised.config, batch_burn_in=6))
    begin(former / "semires", semires.config)
    adopt_former(paths, specs)
    assert not any(run_folder(paths, spec).exists() for spec in specs)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{former / 'supervised'} is left alone, it was begun with batch_burn_in 6, not 8"
    assert lines[1].startswith(f"{former / 'semires'} is left alone, it was begun with burn_in ")
