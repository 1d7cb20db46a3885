import dataclasses

import pytest

from semires.pipeline.recipes import REFSHAPES_CLIPSEG, train_recipe
from semires.stages.data.errors import InputError
from semires.stages.data.splits import SPLITS
from semires.stages.train.config import UNSAID, TrainConfig
from semires.stages.train.matching import MatchConfig, Strategy


@pytest.mark.parametrize("split", [split for split in SPLITS if split != "refshapes"])
def test_train_recipe__the_papers(split: str) -> None:
    assert train_recipe(split) == TrainConfig(split=split)


def test_train_recipe__refshapes_is_small_but_the_same_method() -> None:
    recipe, paper = train_recipe("refshapes"), TrainConfig()
    assert (recipe.split, recipe.model, recipe.labeled) == ("refshapes", "nano", 0.05)
    for name in ("method", "match", "pwa", "class_weights", "lambda_sup"):
        assert getattr(recipe, name) == getattr(paper, name)


def test_train_recipe__refshapes_does_what_older_runs_did() -> None:
    """Runs that were begun before there was a choice go on."""
    recipe = train_recipe("refshapes")
    old = {name: value for name, value in recipe.to_dict().items() if name not in UNSAID}
    assert TrainConfig.from_dict(old) == recipe


@pytest.mark.parametrize("strategy", [None, "cpi-u", "cpi", "iom"])
def test_train_recipe__public_code(strategy: Strategy | None) -> None:
    paper, public = (train_recipe("refcoco", name, strategy=strategy) for name in ("paper", "public-code"))
    assert paper == TrainConfig(match=MatchConfig(**({"strategy": strategy} if strategy else {})))
    of_iom = strategy == "iom"
    assert public == dataclasses.replace(
        paper,
        text="sent",
        eval_text="raw",
        alpha=0.9996,
        lambda_sup=10.0 if of_iom else 1.0,
        patience=None if of_iom else 5,
        mutual_schedule=2.0,
        mutual_loss_mean="plain",
    )


def test_train_recipe__public_code_on_refshapes_is_its_switches_at_refshapes_sizes() -> None:
    paper, public = (train_recipe("refshapes", name) for name in ("paper", "public-code"))
    assert public == dataclasses.replace(
        paper,
        text="sent",
        eval_text="raw",
        blur_labeled=False,
        text_dropout_burn_in=False,
        patience=5,
        mutual_schedule=2.0,
        mutual_loss_mean="plain",
    )


def test_train_recipe__unknown_name() -> None:
    with pytest.raises(InputError, match=r"--recipe: expected one of paper, public-code, found 'public'"):
        train_recipe("refcoco", "public")


def test_train_recipe__refshapes_is_trained_as_its_numbers_were_measured() -> None:
    recipe = train_recipe("refshapes")
    assert (recipe.blur_labeled, recipe.text_dropout_burn_in) == (True, True)


def test_train_recipe__clipseg_nano_has_settings_of_its_own_on_refshapes_alone() -> None:
    recipe = train_recipe("refshapes", "public-code", model="clipseg-nano")
    nano = train_recipe("refshapes", "public-code")
    assert recipe == dataclasses.replace(nano, model="clipseg-nano", **REFSHAPES_CLIPSEG)
    assert recipe != dataclasses.replace(nano, model="clipseg-nano")
    assert train_recipe("refshapes", model="nano") == train_recipe("refshapes")
    assert train_recipe("refcoco", model="clipseg-nano") == TrainConfig(model="clipseg-nano")


def test_train_recipe__unknown_split() -> None:
    with pytest.raises(InputError, match=r"--split: expected one of refcoco, .*found 'refcoco2'"):
        train_recipe("refcoco2")


def test_train_recipe__own_data_has_the_papers_settings_and_all_its_masks() -> None:
    recipe = train_recipe("photos/my.jsonl")
    assert recipe == dataclasses.replace(train_recipe("refcoco"), split="photos/my.jsonl", labeled=1.0)
    assert recipe.model == "base"
    assert TrainConfig.from_dict(recipe.to_dict()) == recipe
