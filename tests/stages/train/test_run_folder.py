import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.config import FREE, UNSAID, TrainConfig
from semires.stages.train.run_folder import RunFolder

NanoConfig = Callable[..., TrainConfig]


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path / "runs" / "one")


def test_start__writes_settings_and_labeled_images(folder: RunFolder, nano_config: NanoConfig) -> None:
    assert not folder.is_started
    folder.start(nano_config(), [3, 5])
    assert folder.is_started
    assert not folder.is_finished
    assert folder.read_config() == nano_config()
    assert folder.read_labeled_images() == [3, 5]
    assert sorted(path.name for path in folder.path.iterdir()) == ["config.json", "labeled_images.json"]


def test_start__same_settings_go_on(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.log({"step": 1})
    folder.start(nano_config(), [3])
    assert folder.read_metrics() == [{"step": 1}]


def test_add_environment__each_that_differs_once_in_order(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    assert folder.read_environments() == []  # a run from before there was such a record
    first, second = {"started": "monday", "threads": 1}, {"started": "tuesday", "threads": 2}
    for environment in (first, {**first, "started": "later"}, second, {**first, "started": "at last"}):
        folder.add_environment(environment)
    assert folder.read_environments() == [first, second]
    (folder.path / "environment.json").write_text("[")
    with pytest.raises(InputError, match=r"expected JSON in .*environment\.json, found a damaged file"):
        folder.read_environments()


def test_start__other_settings_refused_with_both_values(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(alpha=0.9), [3])
    with pytest.raises(InputError, match=r"alpha 0\.9, asked for 0\.8") as caught:
        folder.start(nano_config(alpha=0.8), [3])
    assert str(folder.path) in str(caught.value)
    assert "--name" in str(caught.value)
    assert "\n" not in str(caught.value)


def forget_unsaid(folder: RunFolder) -> None:
    """Make the run one that was begun before texts, blur and dropout could be chosen."""
    path = folder.path / "config.json"
    values = {k: v for k, v in json.loads(path.read_text()).items() if k not in UNSAID}
    path.write_text(json.dumps(values))


def test_start__an_older_run_goes_on_as_it_was_begun(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    forget_unsaid(folder)
    config = nano_config(**UNSAID)
    assert folder.read_config() == config
    folder.start(config, [3])
    options = "give --text sent --eval-text sent --blur-labeled --text-dropout, choose another --name"
    for key, default in (("text", "raw"), ("eval_text", "raw"), ("blur_labeled", False)):
        with pytest.raises(InputError, match=rf"a run with {key} {UNSAID[key]!r}, asked for {default!r}") as caught:
            folder.start(nano_config(**(UNSAID | {key: default})), [3])
        assert options in str(caught.value)
        assert "\n" not in str(caught.value)


def test_start__options_of_a_younger_run_are_named_too(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(text="sent"), [3])
    with pytest.raises(InputError, match="give --text sent --eval-text raw --no-blur-labeled --no-text-dropout, "):
        folder.start(nano_config(blur_labeled=True, text="sent"), [3])


def test_start__what_changes_nothing_computed_may_differ(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.start(nano_config(num_workers=4, gradient_checkpointing=True), [3])
    assert folder.read_config() == nano_config()


def test_start__other_labeled_images_refused(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    with pytest.raises(InputError, match="other labeled images"):
        folder.start(nano_config(), [4])


SOURCES: dict[str, dict[str, Any]] = {
    "store": {"location": "a.zarr", "sam": "vit_h", "generator": {"points_per_side": 32}},
    "burn_in": {"location": "runs/one", "sha256": "12"},
}


def test_start__sources_are_recorded_and_may_move(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3], SOURCES)
    assert folder.read_sources() == SOURCES
    moved = {kind: source | {"location": f"elsewhere/{kind}"} for kind, source in SOURCES.items()}
    folder.start(nano_config(), [3], moved)
    folder.check(nano_config(), [3], {"burn_in": moved["burn_in"]})
    folder.check(nano_config(), [3])
    assert folder.read_sources() == SOURCES


@pytest.mark.parametrize(
    ("kind", "change", "text"),
    [
        ("store", {"sam": "vit_b"}, r"the store a\.zarr \(sam 'vit_h'\), asked for b \(sam 'vit_b'\)"),
        ("store", {"generator": {"points_per_side": 16}}, r"points_per_side': 32.*points_per_side': 16"),
        ("burn_in", {"sha256": None}, r"the burn-in runs/one \(sha256 '12'\), asked for b \(sha256 None\)"),
    ],
)
def test_start__other_sources_refused(
    folder: RunFolder, nano_config: NanoConfig, kind: str, change: dict[str, object], text: str
) -> None:
    folder.start(nano_config(), [3], SOURCES)
    asked = {**SOURCES, kind: {**SOURCES[kind], "location": "b", **change}}
    with pytest.raises(InputError, match=text) as caught:
        folder.start(nano_config(), [3], asked)
    assert "--name" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_start__a_run_without_recorded_sources_goes_on(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.start(nano_config(), [3], SOURCES)
    assert folder.read_sources() == {}


def test_best_sha256__of_the_file(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    with pytest.raises(InputError, match="train the run first"):
        folder.best_sha256()
    (folder.path / "best.safetensors").write_bytes(b"abc")
    assert folder.best_sha256().startswith("ba7816bf8f01cfea")


def test_check__nothing_there_nothing_to_refuse(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.check(nano_config(), [3])
    assert not folder.path.exists()


def test_read__no_run(folder: RunFolder) -> None:
    for read in (folder.read_config, folder.read_labeled_images, folder.read_result, folder.load_model, folder.states):
        with pytest.raises(InputError, match=r"expected a run of `semires train`, found no .*\.json"):
            read()
    assert folder.read_metrics() == []


@pytest.mark.parametrize("text", ["{", "", "[1", '{"unknown": 1}', "[1, 2]", "null"])
def test_read_config__damaged_file(folder: RunFolder, nano_config: NanoConfig, text: str) -> None:
    folder.start(nano_config(), [3])
    (folder.path / "config.json").write_text(text)
    with pytest.raises(InputError) as caught:
        folder.read_config()
    assert "\n" not in str(caught.value)


def test_rewind__drops_lines_of_lost_work(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    for step in (2, 4, 6):
        folder.log({"step": step, "val": {"oiou": step / 3}})
    folder.rewind(4)
    assert [line["step"] for line in folder.read_metrics()] == [2, 4]
    folder.log({"step": 6})
    folder.rewind(0)
    assert folder.read_metrics() == []


def test_read_metrics__a_line_cut_off_by_a_kill_is_left_out(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.log({"step": 2})
    with (folder.path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "va')
    assert folder.read_metrics() == [{"step": 2}]
    folder.rewind(2)
    folder.log({"step": 4})
    assert folder.read_metrics() == [{"step": 2}, {"step": 4}]


@pytest.mark.parametrize("line", [b"{", b"3", b"\xff", b"[1, 2]"])
def test_read_metrics__damaged(folder: RunFolder, nano_config: NanoConfig, line: bytes) -> None:
    folder.start(nano_config(), [3])
    folder.log({"step": 2})
    path = folder.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + line + b"\n")
    folder.log({"step": 4})
    with pytest.raises(InputError, match="found a damaged line 2; remove it"):
        folder.read_metrics()


def test_save_best__load_model_gives_it_back(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    lavt = nano_config().build_model(pretrained=False)
    folder.save_best(lavt.state_dict())
    config, found = folder.load_model()
    assert config == nano_config()
    assert not found.training
    assert found.tokenizer.max_tokens == 20
    for name, tensor in lavt.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor)


def test_load_model__weights_missing_damaged_or_of_another_model(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    with pytest.raises(InputError, match=r"found no .*best\.safetensors: train the run first"):
        folder.load_model()
    (folder.path / "best.safetensors").write_text("not weights")
    with pytest.raises(InputError, match="expected weights of this run's model") as caught:
        folder.load_model()
    assert "\n" not in str(caught.value)
    folder.save_best({"weight": torch.zeros(2)})
    with pytest.raises(InputError, match="expected weights of this run's model") as caught:
        folder.load_model()
    assert "\n" not in str(caught.value)


def test_finish__result_last_and_state_gone(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.states().save(3, {"step": 3})
    folder.finish({"val_oiou": 12.5})
    assert folder.is_finished
    assert folder.read_result() == {"val_oiou": 12.5}
    assert json.loads((folder.path / "result.json").read_text()) == {"val_oiou": 12.5}
    assert not list(folder.path.glob("state*"))
    assert not list(folder.path.glob("*.tmp"))


def test_states__of_a_run_from_before_a_setting_existed(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [1])
    path = folder.path / "config.json"
    older = json.loads(path.read_text())
    del older["group"]
    path.write_text(json.dumps(older))
    # What the code of then wrote into its states.
    settings = {name: value for name, value in older.items() if name not in FREE}
    content = json.dumps([settings, [1]], sort_keys=True)
    assert folder.states().identity == hashlib.sha256(content.encode()).hexdigest()


def test_load_best__unreadable_weights_are_not_called_missing(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    with pytest.raises(InputError, match=r"found no .*best\.safetensors: train the run first"):
        folder.load_model()
    (folder.path / "best.safetensors").mkdir()
    for read in (folder.load_model, folder.best_sha256):
        with pytest.raises(InputError, match=r"best\.safetensors, which cannot be read \(Is a directory\)"):
            read()


def test_save_best__is_for_whom_the_other_files_are_for(folder: RunFolder, nano_config: NanoConfig) -> None:
    folder.start(nano_config(), [3])
    folder.save_best({"a": torch.zeros(1)})
    assert len({path.stat().st_mode for path in folder.path.iterdir()}) == 1
