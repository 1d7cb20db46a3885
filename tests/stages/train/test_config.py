import dataclasses
import json
from typing import Any

import pytest

from semires.stages.data.errors import InputError
from semires.stages.train.config import UNSAID, TrainConfig
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.views import ViewConfig

# Every setting that mutual learning alone reads, at another value than its default.
MUTUAL: dict[str, Any] = {
    "match": MatchConfig(strategy="iom"),
    "refine": False,
    "pwa": False,
    "confidence_filter": 0.05,
    "group": GroupConfig(expressions=None, compete="none", label_floor=0.4, label_mean="kinds", most_refs=4),
    "mutual_epochs": 7,
    "batch_labeled": 5,
    "batch_unlabeled": 9,
    "alpha": 0.5,
    "lambda_sup": 10.0,
    "lambda_unsup": 0.5,
    "patience": 3,
    "mutual_schedule": 2.0,
    "mutual_loss_mean": "plain",
}
# Every other one.
SHARED: dict[str, Any] = {
    "split": "refshapes",
    "labeled": 0.05,
    "labeled_seed": 3,
    "labeled_list": "ids.txt",
    "model": "nano",
    "swin": "swin",
    "bert": "bert",
    "clipseg": "clipseg",
    "window": 12,
    "image_size": 96,
    "text": "sent",
    "eval_text": "sent",
    "views": ViewConfig(hue=0.1),
    "blur_labeled": True,
    "text_dropout_burn_in": True,
    "burn_in_epochs": 2,
    "num_evaluations": 3,
    "batch_burn_in": 5,
    "learning_rate": 1e-3,
    "trunk_rate": 0.5,
    "weight_decay": 0.0,
    "class_weights": (1.0, 2.0),
    "gradient_checkpointing": True,
    "precision": "bf16",
    "micro_batch": 2,
    "compile": True,
    "num_workers": 2,
    "save_minutes": 3.0,
    "seed": 4,
}


def test_defaults__are_the_papers() -> None:
    config = TrainConfig()
    assert (config.split, config.labeled, config.method) == ("refcoco", 0.01, "semires")
    assert (config.match.strategy, config.match.inter1, config.pwa) == ("cpi-u", 0.7, True)
    assert (config.batch_labeled, config.batch_unlabeled) == (4 * 3, 4 * 3)  # 3 + 3 on each of 4 GPUs
    assert config.batch_burn_in == 4 * 2  # as the public scripts
    assert (config.learning_rate, config.weight_decay, config.alpha) == (5e-5, 1e-2, 0.996)
    assert config.class_weights == (0.9, 1.1)
    assert (config.text, config.eval_text) == ("raw", "raw")  # LAVT's
    assert (config.blur_labeled, config.text_dropout_burn_in) == (False, False)


def test_tests_here__know_every_setting() -> None:
    assert {*MUTUAL, *SHARED, "method"} == {field.name for field in dataclasses.fields(TrainConfig)}


@pytest.mark.parametrize("changes", [{}, MUTUAL | SHARED | {"method": "baseline"}])
def test_to_dict__is_json_and_read_back(changes: dict[str, Any]) -> None:
    config = TrainConfig(**changes)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_from_dict__a_run_from_before_there_were_sizes() -> None:
    """Such a run names the published weights; asked for once more, it is the same run."""
    named = {"swin": "microsoft/swin-base-patch4-window12-384-in22k", "bert": "google-bert/bert-base-uncased"}
    assert TrainConfig.from_dict({"model": "base", **named}) == TrainConfig(model="base", **UNSAID)
    assert TrainConfig.from_dict({"model": "nano", **named}) == TrainConfig(model="nano", **UNSAID)


def test_from_dict__a_semires_cc_run_says_less_than_one_of_today() -> None:
    written = TrainConfig(method="semires-cc", group=GroupConfig(expressions=3)).to_dict()
    assert TrainConfig.from_dict(written).group == GroupConfig(expressions=3)
    del written["group"]["label_floor"], written["group"]["label_mean"]
    assert TrainConfig.from_dict(written).group == GroupConfig(expressions=3, label_floor=0.0, label_mean="kinds")
    # Of the other methods none reads it: they are what they were.
    assert TrainConfig.from_dict(written | {"method": "semires"}).group == GroupConfig(expressions=3)


def test_from_dict__what_an_older_run_does_not_say_it_did_as_it_was_done_then() -> None:
    then: dict[str, Any] = {"text": "sent", "eval_text": "sent", "blur_labeled": True, "text_dropout_burn_in": True}
    config = TrainConfig.from_dict({"match": {"inter1": 0.5}, "seed": 2})
    assert config == TrainConfig(match=MatchConfig(inter1=0.5), seed=2, **then)
    for name, default in (("text", "raw"), ("blur_labeled", False), ("text_dropout_burn_in", False)):
        assert TrainConfig.from_dict({name: default}) == TrainConfig(**(then | {name: default}))


@pytest.mark.parametrize(
    "values",
    [
        {"unknown": 1},
        {"match": {"unknown": 1}},
        {"match": {"inter1": 2}},
        {"views": 3},
        {"class_weights": [1.0]},
        {"class_weights": None},
        {"burn_in_epochs": "many"},
        {"labeled": None},
        {"method": "other"},
        [1, 2],
        7,
    ],
)
def test_from_dict__others_refused_in_one_line(values: Any) -> None:
    with pytest.raises(InputError, match=r"expected the settings of a training run, found others") as caught:
        TrainConfig.from_dict(values)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("split", "refcoco++"),
        ("labeled", 2),
        ("labeled", 0),
        ("labeled", -0.1),
        ("labeled", float("nan")),
        ("method", "semi"),
        ("model", "huge"),
        ("precision", "fp16"),
        ("text", "raws"),
        ("eval_text", "tokens"),
        ("mutual_loss_mean", "other"),
        *(("patience", value) for value in (0, -1)),
        *(("mutual_schedule", value) for value in (0.9, 0, float("nan"), float("inf"))),
        *((name, 0) for name in ("burn_in_epochs", "mutual_epochs", "num_evaluations")),
        *((name, 0) for name in ("batch_burn_in", "batch_labeled", "batch_unlabeled")),
        *((name, -1) for name in ("learning_rate", "weight_decay", "lambda_sup", "lambda_unsup")),
        *((name, -1) for name in ("num_workers", "seed")),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("trunk_rate", 1.5),
        ("trunk_rate", -0.1),
        ("micro_batch", 0),
        ("save_minutes", -1.0),
        ("alpha", 1.5),
        ("alpha", -0.1),
    ],
)
def test_init__refuses_naming_setting_and_value(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name.replace("micro_batch", "micro-batch")) as caught:
        TrainConfig(**{name: value})
    assert str(value) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("method", ["supervised", "baseline", "semires"])
@pytest.mark.parametrize("name", MUTUAL)
def test_burn_in__shared_by_runs_that_differ_in_mutual_settings(name: str, method: Any) -> None:
    changed = TrainConfig(method=method, **{name: MUTUAL[name]})
    assert changed.burn_in() == TrainConfig().burn_in()
    assert changed.burn_in().method == "supervised"


@pytest.mark.parametrize("name", SHARED)
def test_burn_in__keeps_every_setting_that_it_reads(name: str) -> None:
    found = TrainConfig(**{name: SHARED[name]}).burn_in()
    assert getattr(found, name) == SHARED[name]
    assert found != TrainConfig().burn_in()


def test_burn_in__of_itself_is_itself() -> None:
    once = TrainConfig(**MUTUAL, **SHARED).burn_in()
    assert once.burn_in() == once


def test_continuing__a_semires_cc_run_of_before_presence() -> None:
    config = TrainConfig(method="semires-cc")
    written = config.to_dict()
    del written["group"]["label_floor"], written["group"]["label_mean"]
    begun = TrainConfig.from_dict(written)
    assert config.continuing(begun) == begun
    assert config.continuing(begun, given=["label_floor"]).group == GroupConfig(label_floor=0.7, label_mean="kinds")
    assert config.continuing(config) == config
    assert TrainConfig().continuing(begun) == TrainConfig()


def test_continuing__former_defaults_that_a_run_was_begun_with() -> None:
    begun = dataclasses.replace(TrainConfig(precision="fp32"), batch_burn_in=6, batch_labeled=3, batch_unlabeled=3)
    assert TrainConfig().continuing(begun) == begun
    # What the user typed is not exchanged, and neither is what is no former default.
    assert TrainConfig().continuing(begun, given=["batch_labeled"]).batch_labeled == 12
    assert TrainConfig(batch_labeled=4).continuing(begun).batch_labeled == 4
    assert TrainConfig().continuing(dataclasses.replace(begun, batch_labeled=5)).batch_labeled == 12
    assert TrainConfig(precision="bf16").continuing(begun).precision == "bf16"
