import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.pipeline.planning.devices import DATA_SHEETS, GIB, PlanDevice
from semires.pipeline.planning.studies.known_runs import KnownRuns, kind_of
from semires.stages.processes.environment import cpu_name
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.run_folder import RunFolder

CPU = PlanDevice(title="here", type="cpu", memory=GIB, peaks={"bf16": 2.0, "fp32": 1.0}, source="a test")
CONFIG = TrainConfig(split="refshapes", model="nano", labeled=0.05)
HERE = {"device": "cpu", "cuda": None, "cpu": {"name": cpu_name(), "cores": 2}, "processes": 1, "threads": 2}
Write = Callable[..., None]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a finished run; environments: what it was trained with, none for a run older than that record."""

    def write(name: str, seconds: float, *environments: dict[str, Any], **changes: Any) -> None:
        folder = RunFolder(tmp_path / name)
        folder.start(dataclasses.replace(CONFIG, **({"precision": "bf16"} | changes)), [1])
        for environment in environments:
            folder.add_environment(environment)
        folder.finish({"seconds": seconds})

    return write


def seconds_of(folder: Path, config: TrainConfig = CONFIG, threads: int = 2, num_processes: int = 1) -> Any:
    found = KnownRuns([folder], CPU, num_processes).time_of(kind_of(config, CPU), threads)
    return None if found is None else (found.seconds, found.num_runs)


def test_known_runs__median_of_those_that_differ_in_what_changes_no_work(tmp_path: Path, write: Write) -> None:
    write("a/seed0", 10.0, HERE)
    write("a/seed1", 30.0, HERE, seed=1, labeled_seed=4, num_workers=3)
    write("b", 20.0, HERE, match=MatchConfig(inter1=0.5), learning_rate=0.1, alpha=0.5)
    for number, changes in enumerate(
        [{"labeled": 0.1}, {"method": "baseline"}, {"mutual_epochs": 1}, {"batch_unlabeled": 5}, {"precision": "fp32"}]
    ):
        write(f"others/{number}", 1.0, HERE, **changes)
    RunFolder(tmp_path / "unfinished").start(CONFIG, [1])
    assert seconds_of(tmp_path) == (20.0, 3)
    assert seconds_of(tmp_path / "b") == (20.0, 1)
    assert seconds_of(tmp_path / "others") is None
    assert seconds_of(tmp_path / "nowhere") is None
    assert KnownRuns([tmp_path, tmp_path / "a"], CPU, 1).time_of(kind_of(CONFIG, CPU), 2) is not None


def test_known_runs__own_burn_ins_are_known_as_well(tmp_path: Path, write: Write) -> None:
    write("run", 50.0, HERE)
    write("run/burn-in", 7.0, HERE, method="supervised", mutual_epochs=9)  # which it does not read
    assert seconds_of(tmp_path) == (50.0, 1)
    assert seconds_of(tmp_path, CONFIG.burn_in()) == (7.0, 1)


def test_known_runs__where_they_were_trained(tmp_path: Path, write: Write) -> None:
    write("elsewhere", 1.0, HERE | {"cpu": {"name": "another", "cores": 2}})
    write("moved", 2.0, HERE, HERE | {"cpu": {"name": "another", "cores": 2}})
    write("several", 3.0, HERE | {"processes": 4})
    write("gpu", 4.0, HERE | {"device": "cuda", "cuda": {"name": "some GPU"}})
    assert seconds_of(tmp_path) is None
    assert seconds_of(tmp_path, num_processes=4) == (3.0, 1)
    write("unsaid", 5.0)
    assert seconds_of(tmp_path) == (5.0, 1)


def test_known_runs__on_a_gpu(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    write("cpu", 3.0, HERE)
    write("gpu", 4.0, HERE | {"device": "cuda", "cuda": {"name": "some GPU"}})
    device = dataclasses.replace(CPU, type="cuda")
    found = KnownRuns([tmp_path], device, 1).time_of(kind_of(CONFIG, device), 9)
    assert found is not None
    assert (found.seconds, found.num_runs) == (4.0, 1)
    # Of a card that is not here nothing is known.
    named = dataclasses.replace(device, source=DATA_SHEETS)
    assert KnownRuns([tmp_path], named, 1).time_of(kind_of(CONFIG, named), 9) is None


def test_known_runs__those_of_as_many_threads_where_there_are_any(tmp_path: Path, write: Write) -> None:
    write("two", 10.0, HERE)
    write("one", 16.0, HERE | {"threads": 1})
    assert [seconds_of(tmp_path, threads=threads) for threads in (2, 1, 8)] == [(10.0, 1), (16.0, 1), (13.0, 2)]


@pytest.mark.parametrize("damage", ["{", "{}", '{"seconds": "a while"}', "[]"])
def test_known_runs__damaged_ones_are_counted(tmp_path: Path, write: Write, damage: str) -> None:
    write("whole", 10.0, HERE)
    write("damaged", 20.0, HERE)
    (tmp_path / "damaged" / "result.json").write_text(damage)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "result.json").write_text("{}")  # of something else
    known = KnownRuns([tmp_path], CPU, 1)
    assert known.num_unread == 1
    assert seconds_of(tmp_path) == (10.0, 1)


def test_kind_of__precision_that_auto_means() -> None:
    without = dataclasses.replace(CPU, peaks={"fp32": 1.0})
    assert kind_of(CONFIG, CPU) == kind_of(dataclasses.replace(CONFIG, precision="bf16"), CPU)
    assert kind_of(CONFIG, without) == kind_of(dataclasses.replace(CONFIG, precision="fp32"), without)
    assert kind_of(CONFIG, CPU) != kind_of(CONFIG, without)
