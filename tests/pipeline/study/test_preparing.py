import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.study.cells import study_runs
from semires.pipeline.study.description import parse_study
from semires.pipeline.study.preparing import prepare_study, what_is_missing
from semires.stages.data.refshapes.writer import RefShapesConfig

CPU = torch.device("cpu")
NANO = {"model": "nano"}


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_what_is_missing__files_then_candidates(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    paths = Paths(data=tmp_path)
    text = what_is_missing("refcoco+", paths)
    assert text is not None
    assert str(tmp_path / "refcoco+" / "refs(unc).p") in text
    assert "`semires data download`" in text
    fake = write_refer("refcoco+")
    paths = Paths(data=fake.root)
    text = what_is_missing("refcoco+", paths)
    assert text is not None
    assert "its candidates are not: run `semires cache-sam --split refcoco+ --sam-checkpoint FILE`" in text
    write_store(paths.store("refcoco+"), "refcoco+", fake.train_ids)
    assert what_is_missing("refcoco+", paths) is None


def test_what_is_missing__refshapes_makes_itself(tmp_path: Path) -> None:
    assert what_is_missing("refshapes", Paths(data=tmp_path)) is None


def test_what_is_missing__own_data(tmp_path: Path) -> None:
    split = str(tmp_path / "my.jsonl")
    assert what_is_missing(split, Paths(data=tmp_path)) == f"{split}: expected a file there, found none; check the path"


def test_prepare_study__what_is_refused_costs_the_rest_nothing(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    """A labeled share without a single image stopped the table, and other data was not measured."""
    for split in ("refcoco", "refcocog"):
        fake = write_refer(split)
        write_store(Paths(data=fake.root).store(split), split, fake.train_ids)
    instances = fake.root / "refcocog" / "instances.json"
    content = json.loads(instances.read_text())
    content["annotations"].pop()  # of a test image
    instances.write_text(json.dumps(content))
    study = parse_study(
        "mine",
        {
            "splits": ["refcocog", "refcoco", "refcoco+"],
            "shares": [0.01, 0.5],
            "seeds": 2,
            "settings": NANO,
            "rows": [{"name": "a", "method": "supervised"}, {"name": "b"}],
        },
    )
    found = prepare_study(study_runs(study, CPU), Paths(data=fake.root, runs=tmp_path / "runs"), ignore)
    lossy, no_image, missing = found.not_measured  # once, whatever the number of seeds
    assert lossy.startswith(
        "refcocog: expected at most 1% of a split's refs dropped on loading, found 1 of 4 of test ("
    )
    assert no_image.startswith("refcoco 1%: expected a labeled share of at least one image, found 0.01 of 8 images")
    assert missing.startswith("refcoco+: missing ")
    assert list(found.datasets) == ["refcoco"]
    assert {(run.split, run.share) for run in found.runs} == {("refcoco", 0.5)}
    assert len(found.runs) == 4
    assert not (tmp_path / "runs").exists()


def test_prepare_study__weights_and_candidates_are_asked_for_before_anything_is_trained(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    fake = write_refer("refcoco")
    paths = Paths(data=fake.root, runs=tmp_path / "runs")
    write_store(paths.store("refcoco"), "refcoco", fake.train_ids[:2])
    study = parse_study(
        "mine",
        {
            "splits": ["refcoco"],
            "shares": [0.5],
            "rows": [
                {"name": "no weights", "method": "baseline", "bert": str(tmp_path / "nowhere")},
                {"name": "no candidates", **NANO},
                {"name": "none needed", "method": "baseline", **NANO},
            ],
        },
    )
    found = prepare_study(study_runs(study, CPU), paths, ignore)
    assert [run.row.name for run in found.runs] == ["none needed"]
    no_weights, no_candidates = found.not_measured
    assert str(tmp_path / "nowhere") in no_weights
    assert "expected candidates of every unlabeled image" in no_candidates


def test_prepare_study__refshapes_is_written(tiny_paths: Paths) -> None:
    study = parse_study("mine", {"splits": ["refshapes"], "shares": [0.25], "rows": [{"name": "a"}]})
    found = prepare_study(study_runs(study, CPU), tiny_paths, ignore)
    assert len(found.datasets["refshapes"].refs_of("train")) > RefShapesConfig(num_train=12).num_train
    assert (len(found.runs), found.not_measured) == (1, ())
