from pathlib import Path

import pytest

from semires.pipeline.paths import Paths
from semires.pipeline.scoring import targets
from semires.pipeline.scoring.targets import Target, choose_target, choose_targets
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = RunFolder(tmp_path / "run")
    config = TrainConfig(split="refshapes", model="nano", eval_text="sent")
    folder.start(config, [1])
    folder.save_best(config.build_model(pretrained=False).state_dict())
    return folder.path


@pytest.mark.parametrize(
    ("on", "splits", "expected"),
    [
        ([], [], [(None, [])]),
        ([], ["val", "testA"], [(None, ["val", "testA"])]),
        (["refcoco+"], ["val"], [("refcoco+", ["val"])]),
        (["refcoco+", "refcocog"], [], [("refcoco+", []), ("refcocog", [])]),
        ([], ["refcocog"], [("refcocog", [])]),
        ([], ["testA", "refcocog"], [(None, ["testA"]), ("refcocog", [])]),
        (["refcoco"], ["testA", "refcocog"], [("refcoco", ["testA"]), ("refcocog", [])]),
        (["refcoco"], ["refcoco", "testA"], [("refcoco", [])]),
        # The run's own data set by its name is no second one: its splits would be measured and written twice.
        (["refshapes"], ["val"], [(None, ["val"])]),
        ([], ["val", "refshapes"], [(None, [])]),
    ],
)
def test_choose_targets__what_a_user_names(
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    on: list[str],
    splits: list[str],
    expected: list[tuple[str | None, list[str]]],
) -> None:
    monkeypatch.setattr(targets, "choose_target", lambda run, paths, tell, *, on, splits: (on, splits))
    assert choose_targets(run, Paths(), ignore, on=on, splits=splits) == expected


def test_choose_target__the_runs_own_name_is_no_other(run: Path, refshapes: ReferDataset) -> None:
    found = choose_target(run, Paths(), ignore, refshapes, on="refshapes")
    assert (found.on, found.splits) == (None, ("val", "testA", "testB"))
    assert found.weights_sha256 == RunFolder(run).best_sha256()
    assert found.texts("val")[0] == refshapes.refs_of("val")[0].expressions[0]


def test_choose_target__each_split_once_train_too(run: Path, refshapes: ReferDataset) -> None:
    found: Target = choose_target(run, Paths(), ignore, refshapes, splits=["train", "val", "train"])
    assert found.splits == ("train", "val")


def test_choose_target__a_run_without_weights(run: Path, refshapes: ReferDataset) -> None:
    (run / "best.safetensors").unlink()
    with pytest.raises(InputError, match="expected a run's weights"):
        choose_target(run, Paths(), ignore, refshapes)
