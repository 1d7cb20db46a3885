import dataclasses
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from semires.pipeline.progress import console
from semires.pipeline.running.loggers import choose_loggers, flatten, run_loggers
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

CONFIG = TrainConfig(split="refshapes", model="nano", labeled=0.25)
Line = dict[str, Any]


class Stopped(Exception):
    """Stands for a kill."""


class Tracker(ModuleType):
    """Stands for wandb or trackio, with the arguments of theirs that are used; keeps its records by id or name."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.calls: list[str] = []
        self.records: dict[str, list[tuple[int, dict[str, float]]]] = {}
        self.configs: dict[str, Any] = {}
        self.names: list[str] = []
        self.open: str | None = None
        self.broken = False

    def init(
        self, project: str, name: str | None = None, config: Any = None, resume: str = "never", **more: Any
    ) -> None:
        assert project == "semires"
        assert name is not None
        assert set(more) == ({"id", "dir"} if self.__name__ == "wandb" else set())
        assert "wandb" not in self.__name__ or Path(more["dir"]).is_dir()
        assert self.open is None
        if self.broken:
            raise ConnectionError("no route\nto host")
        if self.__name__ == "wandb":
            self.open = more["id"]
        else:
            same = [known for known in self.records if known.startswith(f"{name} ")]
            self.open = same[-1] if same and resume == "allow" else f"{name} {len(same)}"
        self.calls.append(f"init {resume}")
        self.names.append(name)
        self.configs[self.open] = json.loads(json.dumps(config))
        self.records.setdefault(self.open, [])

    def log(self, data: dict[str, float], step: int | None = None) -> None:
        assert self.open is not None
        assert step is not None
        if self.broken:
            raise OSError(28, "No space left on device")
        self.records[self.open].append((step, data))

    def finish(self, exit_code: int | None = None) -> None:
        assert (exit_code is not None) == (self.__name__ == "wandb")
        self.calls.append(f"finish {exit_code or 0}")
        self.open = None

    def login(self, *, verify: bool = True) -> bool:
        assert not verify
        self.calls.append("login")
        if self.broken:
            raise ValueError("No API key configured. Use `wandb login` to log in.")
        return True

    @property
    def steps(self) -> list[list[int]]:
        """The steps of each record."""
        return [[step for step, _ in record] for record in self.records.values()]


@pytest.fixture(params=["wandb", "trackio"])
def tracker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Tracker:
    found = Tracker(request.param)
    monkeypatch.setitem(sys.modules, request.param, found)
    return found


def line(step: int, phase: str = "mutual") -> Line:
    val = {"oiou": 40.0 + step, "miou": 44.5, "precision": {0.5: 51.0, 0.9: 3.0}, "num_samples": 4}
    labels = {} if phase == "burn-in" else {"loss_unsup": 0.5, "matched": 0.4, "label_iou_before": 0.5}
    return {"phase": phase, "step": step, "num_steps": 40, "seconds": 1.5, "loss_sup": 0.25, **labels, "val": val}


def start(path: Path, config: TrainConfig = CONFIG) -> RunFolder:
    folder = RunFolder(path)
    folder.start(config, [1])
    return folder


def train(
    folder: RunFolder, lines: list[Line], on_metrics: Callable[[Mapping[str, Any]], None], *, stop: bool = False
) -> None:
    """What a trainer does with its lines; `stop`: then something stops it."""
    folder.rewind(lines[0]["step"] - 1)
    for new in lines:
        folder.log(new)
        on_metrics(new)
    if stop:
        raise Stopped


def scalars(folder: Path, tag: str = "val/oiou") -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder / "tensorboard"))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_flatten__numbers_by_the_names_of_metrics_jsonl() -> None:
    found = flatten({**line(10), "note": "text", "learning_rate": 5e-5})
    assert found == {
        "seconds": 1.5,
        "loss_sup": 0.25,
        "loss_unsup": 0.5,
        "matched": 0.4,
        "label_iou_before": 0.5,
        "val/oiou": 50.0,
        "val/miou": 44.5,
        "val/precision/0.5": 51.0,
        "val/precision/0.9": 3.0,
        "val/num_samples": 4,
        "learning_rate": 5e-5,
    }
    # Read back from metrics.jsonl, where keys are text, they have the same names.
    assert flatten(json.loads(json.dumps({**line(10), "learning_rate": 5e-5}))) == found


def test_choose_loggers__repeated_or_with_commas(monkeypatch: pytest.MonkeyPatch, tracker: Tracker) -> None:
    monkeypatch.delenv("RANK", raising=False)
    name = tracker.__name__
    assert choose_loggers(None) == ()
    assert choose_loggers([f"tensorboard, {name}", "tensorboard"]) == ("tensorboard", name)
    assert tracker.calls == (["login"] if name == "wandb" else [])
    monkeypatch.setenv("RANK", "1")  # of several processes the first alone logs
    assert choose_loggers(["tensorboard"]) == ()


def test_choose_loggers__refusals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(InputError, match=r"--log-to: expected one of tensorboard, wandb, trackio, found 'csv'"):
        choose_loggers(["csv"])
    monkeypatch.setitem(sys.modules, "trackio", None)
    with pytest.raises(InputError, match=r"the package trackio, found none; pip install 'semires\[trackio\]'$"):
        choose_loggers(["trackio"])
    wandb = Tracker("wandb")
    wandb.broken = True
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with pytest.raises(InputError, match=r"--log-to wandb: No API key .* to log in; or set WANDB_MODE=offline$"):
        choose_loggers(["wandb"])
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_loggers(["wandb"]) == ("wandb",)


def test_tensorboard__events_can_be_read_and_go_on(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    with pytest.raises(Stopped), run_loggers(["tensorboard"], folder.path, tmp_path) as on_metrics:
        train(folder, [line(10), line(20)], on_metrics, stop=True)
    assert scalars(folder.path) == [(10, 50.0), (20, 60.0)]
    # A kill between a line and its note: told again, and shown once.
    heard = json.loads((folder.path / "loggers.json").read_text())
    heard["tensorboard"]["step"] = 10
    (folder.path / "loggers.json").write_text(json.dumps(heard))
    with run_loggers(["tensorboard"], folder.path, tmp_path) as on_metrics:
        train(folder, [line(20), line(30)], on_metrics)
    assert scalars(folder.path) == [(10, 50.0), (20, 60.0), (30, 70.0)]
    assert scalars(folder.path, "val/precision/0.5") == [(10, 51.0), (20, 51.0), (30, 51.0)]
    events = EventAccumulator(str(folder.path / "tensorboard"))
    events.Reload()
    assert b'"strategy": "cpi-u"' in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0]


def test_tensorboard__a_run_begun_anew_hides_the_one_before(tmp_path: Path) -> None:
    folder = start(tmp_path / "run")
    for second in (0, 5):
        with run_loggers(["tensorboard"], folder.path, tmp_path) as on_metrics:
            train(folder, [{**line(step), "seconds": second + step} for step in (10, 20)], on_metrics)
        (folder.path / "metrics.jsonl").unlink()
    assert scalars(folder.path, "seconds") == [(10, 15.0), (20, 25.0)]


def test_tracker__one_record_from_start_over_stop_to_end(tmp_path: Path, tracker: Tracker) -> None:
    name = tracker.__name__
    folder = start(tmp_path / "table1" / "semires")
    with pytest.raises(Stopped), run_loggers([name], folder.path, tmp_path) as on_metrics:
        train(folder, [line(10), line(20)], on_metrics, stop=True)
    with run_loggers([name], folder.path, tmp_path) as on_metrics:
        train(folder, [line(20), line(30)], on_metrics)  # went on from the state after step 10
    assert tracker.steps == [[10, 20, 30]]
    assert tracker.names == ["table1/semires"] * 2
    assert next(iter(tracker.records.values()))[0][1] == flatten(line(10))
    assert next(iter(tracker.configs.values()))["match"]["strategy"] == "cpi-u"
    failed = 1 if name == "wandb" else 0
    first = "allow" if name == "wandb" else "never"
    assert tracker.calls == [f"init {first}", f"finish {failed}", "init allow", "finish 0"]
    with run_loggers([name], folder.path, tmp_path):
        pass  # heard it all
    assert len(tracker.calls) == 4
    (folder.path / "metrics.jsonl").unlink()
    with run_loggers([name], folder.path, tmp_path) as on_metrics:
        train(folder, [line(10)], on_metrics)  # begun anew
    assert tracker.steps == [[10, 20, 30], [10]]


def test_tracker__switched_on_late_hears_all(tmp_path: Path, tracker: Tracker) -> None:
    folder, burn_in = start(tmp_path / "run"), start(tmp_path / "run" / "burn-in", CONFIG.burn_in())
    for step in (5, 10):
        burn_in.log(line(step, "burn-in"))
        folder.log(line(step))
    with run_loggers([tracker.__name__], folder.path, tmp_path) as on_metrics:
        train(folder, [line(20)], on_metrics)
        assert tracker.steps == [[5, 10, 20]]
    assert tracker.names == ["run", "run/burn-in"]
    assert tracker.steps == [[5, 10, 20], [5, 10]]
    assert next(reversed(tracker.configs.values()))["method"] == "supervised"


def test_tracker__burn_in_has_a_record_of_its_own(tmp_path: Path, tracker: Tracker) -> None:
    folder = start(tmp_path / "run")
    with run_loggers([tracker.__name__], folder.path, tmp_path / "elsewhere") as on_metrics:
        train(start(folder.path / "burn-in", CONFIG.burn_in()), [line(5, "burn-in")], on_metrics)
        train(folder, [line(5)], on_metrics)
    assert tracker.names == [str(folder.path / "burn-in"), str(folder.path)]
    assert tracker.steps == [[5], [5]]
    supervised = start(tmp_path / "supervised", dataclasses.replace(CONFIG.burn_in(), seed=1))
    with run_loggers([tracker.__name__], supervised.path, tmp_path) as on_metrics:
        train(supervised, [line(5, "burn-in")], on_metrics)  # the run itself
    assert tracker.names[2:] == ["supervised"]


def test_tracker__same_name_in_another_folder_is_another_record(tmp_path: Path, tracker: Tracker) -> None:
    for root in (tmp_path / "one", tmp_path / "two"):
        folder = start(root / "run")
        with run_loggers([tracker.__name__], folder.path, root) as on_metrics:
            train(folder, [line(10)], on_metrics)
    assert tracker.steps == [[10], [10]]


@pytest.mark.parametrize("when", ["at once", "later"])
def test_failing_logger__said_once_and_training_goes_on(
    tmp_path: Path, tracker: Tracker, when: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = start(tmp_path / "run")
    tracker.broken = when == "at once"
    with run_loggers(["tensorboard", tracker.__name__], folder.path, tmp_path) as on_metrics:
        for step in (10, 20, 30):
            train(folder, [line(step)], on_metrics)
            tracker.broken = True
    why = "no route to host" if when == "at once" else "[Errno 28] No space left on device"
    assert capsys.readouterr().out.splitlines() == [
        f"{tracker.__name__} failed ({why}), no longer told; metrics.jsonl has every line"
    ]
    assert [step for step, _ in scalars(folder.path)] == [10, 20, 30]
    # The next process tells it what it has missed.
    tracker.broken = False
    with run_loggers([tracker.__name__], folder.path, tmp_path):
        pass
    assert tracker.steps == [[10, 20, 30]]


def test_failing_folder__stops_no_training(tmp_path: Path) -> None:
    said: list[str] = []
    with run_loggers(["tensorboard"], tmp_path / "none", tmp_path, said.append) as on_metrics:
        on_metrics(line(10))
        on_metrics(line(20))
    assert len(said) == 1
    assert said[0].startswith("tensorboard failed (expected a run of `semires train`")


def test_no_logger__does_nothing(tmp_path: Path) -> None:
    with run_loggers([], tmp_path / "none", tmp_path) as on_metrics:
        on_metrics(line(10))
    assert not list(tmp_path.iterdir())
    assert not console.is_interactive
