import dataclasses
import inspect
import json
import shlex
from pathlib import Path

import pytest
import torch

from semires.pipeline.commands.train import train
from semires.pipeline.recipes import train_recipe
from semires.pipeline.reporting import run_card as module
from semires.pipeline.reporting.run_card import run_card, train_command
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

OPTIONS = inspect.signature(train).parameters.keys()


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A finished run of random weights, its burn-in and store elsewhere."""
    folder = RunFolder(tmp_path / "my run")
    config = dataclasses.replace(train_recipe("refshapes"), method="semires", labeled=0.25, seed=3)
    burn_in = {"location": "runs/first", "sha256": "0" * 64}
    store = {"location": "s3://bucket/x.zarr", "split": "refshapes", "sam": "tiny", "sam_sha256": "", "generator": {}}
    folder.start(config, [1, 2], {"store": store, "burn_in": burn_in})
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"val_oiou": 43.21, "steps": 100, "seconds": 12.5})
    return folder


def test_run_card__what_was_measured(run: RunFolder) -> None:
    card = run_card(run.path, OPTIONS)
    assert card.title == "LAVT-nano, RefShapes, SemiRES"
    assert "masks for 25% of the train images of RefShapes" in card.about
    assert "has never seen a photograph" in card.about
    assert "test splits were not measured" in card.measured
    assert "43.21% oIoU on val" in card.measured
    config = json.loads((run.path / "config.json").read_text(encoding="utf-8"))
    (run.path / "config.json").write_text(json.dumps(config | {"labeled_list": "ids.txt"}), encoding="utf-8")
    assert "masks for 2 train images of RefShapes that a list names." in run_card(run.path, OPTIONS).about
    (run.path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    precision = {"0.5": 61.0, "0.9": 12.3456}
    scores = {"oiou": 52.604, "miou": 57.1, "precision": precision, "num_samples": 610}
    (run.path / "scores.json").write_text(
        json.dumps({"split": "refshapes", "method": "semires", "labeled": 0.25, "by_split": {"testB": scores}})
    )
    measured = run_card(run.path, OPTIONS).measured
    assert "| split | expressions | oIoU | mIoU | P@0.5 | P@0.9 |" in measured
    assert "| testB | 610 | 52.60 | 57.10 | 61.00 | 12.35 |" in measured
    assert f"semires evaluate {shlex.quote(str(run.path))}" in measured
    assert "resized by a rule that was not recorded" in measured
    assert f"its `{run.read_config().eval_text}` text" in measured
    assert "not measured" not in measured
    content = json.loads((run.path / "scores.json").read_text()) | {"targets": "pil-nearest"}
    (run.path / "scores.json").write_text(json.dumps(content))
    assert "resized by pil-nearest" in run_card(run.path, OPTIONS).measured
    for content in ("{", "[]", '{"split": "refshapes"}'):
        (run.path / "scores.json").write_text(content)
        with pytest.raises(InputError, match="expected scores that `semires evaluate` wrote"):
            run_card(run.path, OPTIONS)


def test_run_card__scores_of_other_weights_are_refused(run: RunFolder) -> None:
    values = {"oiou": 40.0, "miou": 41.0, "precision": {"0.5": 61.0}, "num_samples": 7}
    scores = {"split": "refshapes", "method": "semires", "labeled": 0.25, "by_split": {"val": values}}
    path = run.path / "scores.json"
    path.write_text(json.dumps(scores | {"weights_sha256": run.best_sha256()}))
    assert "| val | 7 | 40.00 |" in run_card(run.path, OPTIONS).measured
    path.write_text(json.dumps(scores | {"weights_sha256": "0" * 64}))
    with pytest.raises(InputError, match=r"found those of others in .*run `semires evaluate` again"):
        run_card(run.path, OPTIONS)


def test_run_card__how_it_was_made(run: RunFolder) -> None:
    made = run_card(run.path, OPTIONS).made
    command = "semires train --split refshapes --labeled 0.25 --seed 3 --store s3://bucket/x.zarr --burn-in runs/first"
    assert f"```sh\n{command}\n```" in made
    assert f"sha256 {run.best_sha256()}" in made
    assert "the teacher's" in made
    assert "Labeled images: 2." in made
    settings = json.loads(made.rpartition("```json\n")[2].removesuffix("```"))
    assert TrainConfig.from_dict(settings) == run.read_config()


def test_run_card__unfinished(run: RunFolder) -> None:
    (run.path / "result.json").unlink()
    with pytest.raises(InputError, match=r"result\.json"):
        run_card(run.path, OPTIONS)


def test_train_command__says_what_differs_and_what_it_cannot_say() -> None:
    recipe = train_recipe("refcoco")
    assert train_command(recipe, OPTIONS) == ("semires train --split refcoco", {})
    supervised = dataclasses.replace(recipe, method="supervised").burn_in()
    assert train_command(supervised, OPTIONS) == ("semires train --split refcoco --method supervised", {})
    match = dataclasses.replace(recipe.match, strategy="iom", iou_rate=0.6)
    views = dataclasses.replace(recipe.views, hue=0.02)
    config = dataclasses.replace(
        recipe, match=match, views=views, pwa=False, swin="my swin", learning_rate=1e-05, weight_decay=0.1
    )
    command, others = train_command(config, OPTIONS)
    assert shlex.split(command)[4:] == [
        *("--no-pwa", "--swin", "my swin", "--learning-rate", "1e-05", "--matching", "iom", "--iou-rate", "0.6")
    ]
    assert others == {"views": dataclasses.asdict(views), "weight_decay": 0.1}


def test_train_command__the_model_and_not_what_its_recipe_has() -> None:
    recipe = train_recipe("refshapes", model="clipseg-nano")
    assert train_command(recipe, OPTIONS) == ("semires train --split refshapes --model clipseg-nano", {})
    slower = dataclasses.replace(recipe, learning_rate=1e-05)
    assert train_command(slower, OPTIONS)[0].endswith(" --model clipseg-nano --learning-rate 1e-05")


def test_train_command__other_names_are_those_of_the_command() -> None:
    assert set(module.OPTIONS.values()) <= set(OPTIONS)
    recipe = train_recipe("refshapes")
    config = dataclasses.replace(recipe, text_dropout_burn_in=not recipe.text_dropout_burn_in)
    said = "--no-text-dropout" if recipe.text_dropout_burn_in else "--text-dropout"
    assert train_command(config, OPTIONS) == (f"semires train --split refshapes {said}", {})


def test_run_card__own_data_by_its_files_name(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    config = dataclasses.replace(train_recipe(str(tmp_path / "my.jsonl")), model="nano")
    folder.start(config, [1, 2, 7])
    torch.manual_seed(0)
    folder.save_best(config.build_model(pretrained=False).state_dict())
    folder.finish({"val_oiou": 43.21, "steps": 100, "seconds": 12.5})
    card = run_card(folder.path, OPTIONS)
    assert card.title == "LAVT-nano, my.jsonl, SemiRES"
    assert "with masks for 3 train images of my.jsonl." in card.about
    assert f"semires train --split {tmp_path / 'my.jsonl'} --model nano" in card.made


def test_run_card__what_it_was_trained_with(run: RunFolder) -> None:
    assert "Trained with" not in run_card(run.path, OPTIONS).made  # a run from before it was recorded
    first = {
        "semires": {"version": "0.1.0", "commit": "ab12", "is_changed": True},
        "python": "3.11.7",
        "packages": {"torch": "2.15", "torchvision": None},
        "cpu": {"name": "some CPU", "cores": 2},
        "cuda": None,
        "processes": 1,
    }
    second = first | {
        "semires": {"version": None, "commit": None, "is_changed": None},
        "cuda": {"name": "some GPU"},
        "processes": 4,
    }
    run.add_environment(first)
    run.add_environment(second)
    assert run_card(run.path, OPTIONS).made.endswith(
        "\n\nTrained with semires 0.1.0, commit ab12 with changes, Python 3.11.7, torch 2.15, on some CPU; then with "
        "semires of no known version, Python 3.11.7, torch 2.15, on some GPU, 4 processes."
    )
