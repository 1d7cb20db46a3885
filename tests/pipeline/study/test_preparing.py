import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.study.cells import study_runs
from semires.pipeline.study.description import parse_study
from semires.pipeline.study.folders import run_folder
from semires.pipeline.study.preparing import prepare_study, what_is_missing
from semires.stages.data.datasets import open_dataset
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.run import check_run, store_source
from semires.stages.train.run_folder import RunFolder

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


def test_prepare_study__weights_are_refused_for_every_seed(tmp_path: Path, write_refer: Callable[..., Any]) -> None:
    """Supervised runs need no candidates either."""
    paths = Paths(data=write_refer("refcoco").root, runs=tmp_path / "runs")
    rows = [{"name": "a", "bert": str(tmp_path / "nowhere")}, {"name": "b", **NANO}]
    content = {"splits": ["refcoco"], "shares": [0.5], "seeds": 2, "settings": {"method": "supervised"}, "rows": rows}
    found = prepare_study(study_runs(parse_study("mine", content), CPU), paths, ignore)
    assert [run.row.name for run in found.runs] == ["b", "b"]
    assert len(found.not_measured) == 1


def test_prepare_study__a_finished_burn_in_has_kept_its_network(
    tmp_path: Path, write_refer: Callable[..., Any]
) -> None:
    """Weights that have moved since were asked for."""
    paths = Paths(data=write_refer("refcoco").root, runs=tmp_path / "runs")
    row = {"name": "a", "method": "baseline", "bert": str(tmp_path / "nowhere")}
    (run,) = study_runs(parse_study("mine", {"splits": ["refcoco"], "shares": [0.5], "rows": [row]}), CPU)
    assert run.spec.burn_in is not None
    assert prepare_study([run], paths, ignore).runs == ()
    labeled, _ = check_run(run.spec.config, open_dataset(paths.data, "refcoco"), tmp_path / "none")
    folder = RunFolder(run_folder(paths, run.spec.burn_in))
    folder.start(run.spec.burn_in.config, sorted({ref.image_id for ref in labeled}))
    folder.finish({})
    assert prepare_study([run], paths, ignore).runs == (run,)


def test_prepare_study__a_run_of_other_candidates_is_not_shown_as_of_these(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    fake = write_refer("refcoco")
    paths = Paths(data=fake.root, runs=tmp_path / "runs")
    write_store(paths.store("refcoco"), "refcoco", fake.train_ids)
    study = parse_study("mine", {"splits": ["refcoco"], "shares": [0.5], "settings": NANO, "rows": [{"name": "a"}]})
    (run,) = study_runs(study, CPU)
    labeled, _ = check_run(run.spec.config, open_dataset(paths.data, "refcoco"), tmp_path / "none")
    folder = RunFolder(run_folder(paths, run.spec))
    store = store_source(paths.store("refcoco"))
    images = sorted({ref.image_id for ref in labeled})
    folder.start(run.spec.config, images, {"store": store | {"sam_sha256": "of another SAM"}})
    folder.finish({})
    found = prepare_study([run], paths, ignore)
    assert found.runs == ()
    (line,) = found.not_measured
    assert "holds a run with the store" in line
    assert line.endswith("(of a study's run: move the folder away)")


def test_prepare_study__refshapes_is_written(tiny_paths: Paths) -> None:
    study = parse_study("mine", {"splits": ["refshapes"], "shares": [0.25], "rows": [{"name": "a"}]})
    found = prepare_study(study_runs(study, CPU), tiny_paths, ignore)
    assert len(found.datasets["refshapes"].refs_of("train")) > RefShapesConfig(num_train=12).num_train
    assert (len(found.runs), found.not_measured) == (1, ())
