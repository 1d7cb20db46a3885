import dataclasses
from collections.abc import Callable
from pathlib import Path

from semires.pipeline.report.runs import read_run
from semires.pipeline.report.settings import data_facts, flat, settings
from semires.pipeline.scoring.scores import RunScores
from semires.stages.train.config import TrainConfig

DATA = {"num_refs": 900, "num_images": 300, "num_expressions": 1813, "refs_sha256": "a" * 64}


def test_settings__those_that_differ_by_row_and_those_that_all_have(write_run: Callable[..., Path]) -> None:
    runs = [
        read_run(write_run("a", seed=0, alpha=0.99), "one"),
        read_run(write_run("b", seed=1, alpha=0.99), "one"),
        read_run(write_run("c", alpha=0.996), "other"),
    ]
    found = settings(runs, name="settings", title="Runs")
    assert found.differing is not None
    assert found.differing.columns == ("alpha",)
    assert [(row.name, row.cells[0].value) for row in found.differing.rows] == [("one", "0.99"), ("other", "0.996")]
    common = dict(found.common)
    assert (common["match.strategy"], common["split"], common["patience"]) == ("cpi-u", "refshapes", "null")
    assert "seed" not in common


def test_settings__of_alike_rows(write_run: Callable[..., Path]) -> None:
    assert settings([read_run(write_run("a"), "one")], name="settings", title="Runs").differing is None


def test_flat__every_setting_as_text() -> None:
    found = flat(TrainConfig())
    assert (found["class_weights"], found["refine"], found["views.hue"]) == ("[0.9, 1.1]", "true", "0.25")


def test_data_facts__says_where_runs_were_measured_on_different_data(write_run: Callable[..., Path]) -> None:
    runs = []
    for name, content in (("a", "1"), ("b", "1"), ("c", "2")):
        by_split = {"val": {"data": DATA | {"content_sha256": content * 64}}}
        scores = RunScores(split="refshapes", method="semires", labeled=0.05, by_split=by_split)
        runs.append(dataclasses.replace(read_run(write_run(name), name), scores=scores))
    (alone,) = data_facts(runs[:2])
    assert (alone.name, alone.runs) == ("data of RefShapes val", "")
    assert alone.value.startswith(
        "900 refs, 300 images, 1,813 expressions; sha256 of ref ids aaaaaaaaaaaa, of the content"
    )
    both = data_facts(runs)
    assert [fact.value[-12:] for fact in both] == ["1" * 12, "2" * 12]
    assert both[1].runs == f"1 run: {runs[2].folder}"
