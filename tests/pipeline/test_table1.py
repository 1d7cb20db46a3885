import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.reader import CandidateStore
from semires.pipeline import datasets, table1
from semires.pipeline.paths import Paths
from semires.pipeline.recipes import TABLE1_SHARES, train_recipe
from semires.pipeline.running import stage_runs
from semires.pipeline.scoring.scores import RunScores
from semires.pipeline.table1 import plan_grid, run_table1, what_is_missing
from semires.stages.data.errors import InputError
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.config import TrainConfig
from semires.stages.train.run import check_burn_in
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
SCORES: dict[str, Any] = {"split": "refcoco", "by_split": {"val": {"oiou": 7.0}}}
METHODS = ["supervised", "baseline", "semires", "semires-cc"]


class Stopped(Exception):
    """Stands for a kill."""


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_plan_grid__methods_of_a_seed_share_their_burn_in(tmp_path: Path) -> None:
    runs = plan_grid("refcoco", (0.005, 0.01), 2, tmp_path)
    assert len(runs) == len({run.folder for run in runs}) == 2 * 2 * 4
    for start in range(0, len(runs), 4):
        supervised, baseline, semires, semires_cc = runs[start : start + 4]
        assert [run.config.method for run in runs[start : start + 4]] == METHODS
        assert supervised.burn_in is None
        assert baseline.burn_in == semires.burn_in == semires_cc.burn_in == supervised.folder
        assert supervised.config == baseline.config.burn_in() == semires.config.burn_in()
        assert dataclasses.replace(baseline.config, method="semires") == semires.config
        assert dataclasses.replace(baseline.config, method="semires-cc") == semires_cc.config


def test_plan_grid__supervised_runs_are_accepted_as_burn_in(tmp_path: Path) -> None:
    supervised, *others = plan_grid("refcocog", (0.02,), 1, tmp_path)
    folder = RunFolder(supervised.folder)
    folder.start(supervised.config, [1])
    folder.finish({})
    for run in others:
        check_burn_in(folder, run.config)


def test_plan_grid__every_seed_has_the_published_labeled_images(tmp_path: Path) -> None:
    runs = plan_grid("refcoco+", (0.01,), 3, tmp_path)
    assert [(run.seed, run.config.seed, run.config.labeled_seed) for run in runs[::4]] == [(n, n, 0) for n in range(3)]
    assert runs[0].folder == tmp_path / "refcoco+" / "0.01" / "seed0" / "supervised"
    # The first seed's runs have the paper's settings.
    assert runs[2].config == TrainConfig(split="refcoco+")


def test_as_begun__the_cells_of_a_grid_are_those_of_its_first_run(tmp_path: Path) -> None:
    supervised, baseline, semires, _ = plan_grid("refcoco", [0.01], 1, tmp_path)
    cpu = torch.device("cpu")
    assert table1._as_begun(semires, cpu).config == semires.config.resolved(cpu)
    # Begun when the batch was that of one GPU, in float32.
    former = {"batch_burn_in": 6, "batch_labeled": 3, "batch_unlabeled": 3, "precision": "fp32"}
    RunFolder(supervised.folder).start(dataclasses.replace(supervised.config, **former), [1])
    for run in (supervised, baseline, semires):
        assert table1._as_begun(run, cpu).config == dataclasses.replace(run.config, **former)


def test_what_is_missing__files_then_candidates(
    tmp_path: Path, write_refer: Callable[..., Any], write_store: Callable[..., None]
) -> None:
    paths = Paths(data=tmp_path / "data")
    text = what_is_missing("refcoco", paths)
    assert text is not None
    for path in ("refcoco/refs(unc).p", "refcoco/instances.json", "images/mscoco/images/train2014"):
        assert str(paths.data / path) in text
    assert "semires cache-sam --split refcoco --sam-checkpoint FILE" in text
    fake = write_refer("refcoco")
    text = what_is_missing("refcoco", paths)
    assert text is not None
    assert "its data is here, its candidates are not: run `semires cache-sam --split refcoco" in text
    write_store(paths.store("refcoco"), "refcoco", fake.train_ids)
    assert what_is_missing("refcoco", paths) is None


def test_what_is_missing__refshapes_makes_itself(tmp_path: Path) -> None:
    assert what_is_missing("refshapes", Paths(data=tmp_path)) is None


@pytest.fixture
def tiny_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refshapes_store: Path) -> Paths:
    """A RefShapes of 12 train images whose candidates are there, and a recipe of a few steps."""
    monkeypatch.setattr(datasets, "REFSHAPES", RefShapesConfig(num_train=12, num_val=2, num_test=2))

    def recipe(split: str) -> TrainConfig:
        small = {"burn_in_epochs": 1, "mutual_epochs": 1, "num_evaluations": 1, "batch_unlabeled": 12}
        return dataclasses.replace(train_recipe(split), **small)  # type: ignore[arg-type]

    monkeypatch.setattr(table1, "train_recipe", recipe)
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    paths.store("refshapes").parent.mkdir(parents=True)
    # The shared store holds every train image: nothing is cached anew. Copied, for its view is built in it.
    shutil.copytree(refshapes_store, paths.store("refshapes"))
    return paths


def test_run_table1__goes_on_where_it_stopped(tiny_grid: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    def stop(what: str, done: int, total: int, note: str = "") -> None:
        if what == "semires":
            raise Stopped

    with pytest.raises(Stopped):
        run_table1(tiny_grid, CPU, stop, shares=[0.25])
    folder = tiny_grid.runs / "table1" / "refshapes" / "0.25" / "seed0"
    assert [RunFolder(folder / method).is_finished for method in METHODS] == [True, True, False, False]
    assert not tiny_grid.reports.exists()
    finished = {path: path.stat().st_mtime_ns for name in METHODS[:2] for path in (folder / name).iterdir()}
    seen: set[str] = set()
    run_table1(tiny_grid, CPU, lambda what, *rest: seen.add(what), shares=[0.25])
    assert {*METHODS} & seen == {"semires", "semires-cc"}
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    assert not (folder / "semires" / "burn-in").exists()

    content = json.loads((tiny_grid.reports / "table1.json").read_text())
    assert [table["split"] for table in content["tables"]] == ["refshapes"]
    rows = content["tables"][0]["rows"]
    for method in METHODS:
        scores = json.loads((folder / method / "scores.json").read_text())["by_split"]
        assert [cell["measured"] for cell in rows[method]] == [
            [scores[name]["oiou"]] for name in ("val", "testA", "testB")
        ]
        assert {cell["published"] for cell in rows[method]} == {None}
    assert [note.split(":")[0] for note in content["not_measured"]] == ["refcoco", "refcoco+", "refcocog"]
    text = (tiny_grid.reports / "table1.md").read_text()
    assert "## RefShapes" in text
    assert "## RefCOCO" not in text
    assert "## Not measured" in text
    out = capsys.readouterr().out
    for split in ("refcoco", "refcoco+", "refcocog"):
        assert f"not measured: {split}: missing " in out


def test_run_table1__nothing_here_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    paths.reports.mkdir()
    (paths.reports / "table1.json").write_text("of an earlier call")
    assert not run_table1(paths, CPU, ignore, splits=["refcocog"])
    out = " ".join(capsys.readouterr().out.split())
    assert "not measured: refcocog" in out
    assert "nothing was measured: what is in" in out
    assert [path.read_text() for path in paths.reports.iterdir()] == ["of an earlier call"]


@pytest.mark.parametrize("split", ["refcoco2", "refcocog-google"])
def test_run_table1__split_that_is_not_in_table_1(tmp_path: Path, split: str) -> None:
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    with pytest.raises(InputError, match=f"--split: expected one of refcoco, .*found '{split}'"):
        run_table1(paths, CPU, ignore, splits=["refcoco", split])
    assert not paths.reports.exists()


def test_run_table1__shares_are_checked_before_anything_is_done(tmp_path: Path) -> None:
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    with pytest.raises(InputError, match="--labeled: expected a share"):
        run_table1(paths, CPU, ignore, splits=["refshapes"], shares=[2.0])
    assert not paths.runs.exists()
    assert not paths.data.exists()


def test_run_table1__goes_on_past_what_cannot_be_measured(
    tiny_grid: Paths,
    write_refer: Callable[..., Any],
    write_store: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A labeled share without a single image stopped the table, and RefShapes was not measured."""
    for split in ("refcoco", "refcocog"):
        fake = write_refer(split)
        write_store(tiny_grid.store(split), split, fake.train_ids)
    instances = tiny_grid.data / "refcocog" / "instances.json"
    content = json.loads(instances.read_text())
    content["annotations"].pop()  # of a test image
    instances.write_text(json.dumps(content))
    done: list[Any] = []

    def train(config: TrainConfig, paths: Paths, run: Path, *rest: Any, **options: Any) -> None:
        if config.labeled == 0.5 and config.method == "semires":
            raise InputError("images that cannot be read")
        stage_runs.prepare(dataclasses.replace(config, method="supervised"), paths, run, ignore)
        done.append(config)

    monkeypatch.setattr(table1, "train", train)
    monkeypatch.setattr(table1, "is_worth_it", lambda num_jobs, device: False)
    monkeypatch.setattr(table1, "evaluate_run", lambda run, *rest: RunScores(**SCORES, method=run.name, labeled=0.5))
    monkeypatch.setattr(table1, "train_recipe", lambda split: TrainConfig(split=split, model="nano"))
    paths = dataclasses.replace(tiny_grid, data=fake.root)
    assert not run_table1(paths, CPU, ignore, splits=["refcocog", "refcoco"], shares=[0.01, 0.5], num_seeds=2)
    content = json.loads((paths.reports / "table1.json").read_text())
    lossy, no_image, unread = content["not_measured"]  # once, whatever the number of seeds
    assert capsys.readouterr().out.count("not measured: ") == 3
    assert lossy.startswith(
        "refcocog: expected at most 1% of a split's refs dropped on loading, found 1 of 4 of test ("
    )
    assert no_image.startswith("refcoco 1%: expected a labeled share of at least one image, found 0.01 of 8 images")
    assert unread == "refcoco 50%: images that cannot be read"
    assert [config.method for config in done] == ["supervised", "baseline"] * 2
    (table,) = content["tables"]
    assert [cell["measured"] for cell in table["rows"]["baseline"]] == [[]] * 6  # none is finished
    assert [cell["measured"] for cell in table["rows"]["supervised"]] == [[], [], [], [7.0, 7.0], [], []]
    assert "- refcoco 50%: images that cannot be read" in (paths.reports / "table1.md").read_text()


def test_run_table1__a_run_that_is_refused_hides_no_finished_one(
    tiny_grid: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: TrainConfig, paths: Paths, run: Path, *rest: Any, **options: Any) -> None:
        if config.method == "semires-cc":
            raise OSError(5, "Input/output error", str(run))
        folder = RunFolder(run)
        folder.start(config, [1])
        folder.finish({})

    of_split = SCORES | {"split": "refshapes"}
    monkeypatch.setattr(table1, "train", train)
    monkeypatch.setattr(table1, "is_worth_it", lambda num_jobs, device: False)
    monkeypatch.setattr(table1, "evaluate_run", lambda run, *rest: RunScores(**of_split, method=run.name, labeled=0.25))
    assert not run_table1(tiny_grid, CPU, ignore, splits=["refshapes"], shares=[0.25])
    content = json.loads((tiny_grid.reports / "table1.json").read_text())
    assert [run["scores"]["method"] for run in content["runs"]] == list(METHODS[:3])
    assert "Input/output error" in content["not_measured"][0]


def test_run_table1__settings_of_the_runs(
    tiny_grid: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}

    def plan(split: str, *rest: Any) -> list[Any]:
        found[split] = rest[-1]
        return []

    monkeypatch.setattr(table1, "plan_grid", plan)
    monkeypatch.setattr(table1, "train_recipe", train_recipe)
    run_table1(tiny_grid, CPU, ignore, swin="swin", bert="bert", num_workers=0)
    of_lavt = {"swin": "swin", "bert": "bert", "num_workers": 0}
    assert found == dict.fromkeys(("refcoco", "refcoco+", "refcocog"), of_lavt) | {"refshapes": {"num_workers": 0}}
    runs = plan_grid("refcoco", (0.01,), 1, tiny_grid.runs, of_lavt)
    assert {(run.config.swin, run.config.bert, run.config.num_workers) for run in runs} == {("swin", "bert", 0)}


def test_table1_shares__every_split_has_a_plan(tmp_path: Path) -> None:
    for split, shares in TABLE1_SHARES.items():
        assert len(plan_grid(split, shares, 1, tmp_path)) == 4 * len(shares)


@pytest.mark.usefixtures("quick_processes")
def test_run_table1__methods_of_a_burn_in_side_by_side(
    tiny_grid: Paths, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two processes of one thread leave what one process of one thread leaves, and log as it does; the candidates are
    made beside the burn-in."""
    shutil.rmtree(tiny_grid.store("refshapes"))
    monkeypatch.setattr(table1, "is_worth_it", lambda num_jobs, device: True)
    folder = tiny_grid.runs / "table1" / "refshapes" / "0.25" / "seed0"
    (folder / "baseline").mkdir(parents=True)
    (folder / "baseline" / "tensorboard").write_text("in the way")
    seen: set[str] = set()
    show, grid = lambda what, *rest: seen.add(what), {"splits": ["refshapes"], "shares": [0.25]}
    run_table1(tiny_grid, CPU, show, **grid, log_to=["tensorboard"])
    assert len(list((folder / "supervised" / "tensorboard").iterdir())) == 1
    assert len(list((folder / "semires" / "tensorboard").iterdir())) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("tensorboard failed (")]
    assert len(failed) == 1
    assert str(folder / "baseline" / "tensorboard") in failed[0]
    assert {
        *METHODS,
        "evaluation of baseline",
        "evaluation of semires",
        "evaluation of semires-cc",
        "candidate masks",
    } <= seen
    assert len(CandidateStore(tiny_grid.store("refshapes"))) == 12
    monkeypatch.setattr(table1, "is_worth_it", lambda num_jobs, device: False)
    one_by_one = dataclasses.replace(tiny_grid, runs=tiny_grid.runs.parent / "one_by_one")
    # Their burn-in is the same one.
    shutil.copytree(folder / "supervised", one_by_one.runs / folder.relative_to(tiny_grid.runs) / "supervised")
    run_table1(one_by_one, CPU, ignore, splits=["refshapes"], shares=[0.25])
    for method in METHODS[1:]:
        found, expected = (
            json.loads((paths.runs / "table1" / "refshapes" / "0.25" / "seed0" / method / "scores.json").read_text())
            for paths in (tiny_grid, one_by_one)
        )
        assert found == expected


def test_run_table1__own_data(
    tmp_path: Path, write_own: Callable[..., Any], write_store: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def recipe(split: str) -> TrainConfig:
        small: dict[str, Any] = {"model": "nano", "burn_in_epochs": 1, "mutual_epochs": 1, "num_evaluations": 1}
        return dataclasses.replace(train_recipe(split), **small)

    monkeypatch.setattr(table1, "train_recipe", recipe)
    paths = Paths(data=tmp_path / "data", runs=tmp_path / "runs", reports=tmp_path / "reports")
    split = str(tmp_path / "my.jsonl")
    assert what_is_missing(split, paths) == f"{split}: expected a file there, found none; check the path"
    own = write_own()
    text = what_is_missing(split, paths)
    assert text is not None
    assert f"its candidates are not: run `semires cache-sam --split {split} --sam-checkpoint FILE`" in text
    write_store(paths.store(split), "my.jsonl", own.train_ids)

    run_table1(paths, CPU, ignore, splits=[split])
    folder = paths.runs / "table1" / "my" / "1" / "seed0"
    assert [RunFolder(folder / method).is_finished for method in METHODS] == [True] * 4
    (table,) = json.loads((paths.reports / "table1.json").read_text())["tables"]
    assert table["columns"] == ["100% val", "100% testA"]
    assert all(len(cell["measured"]) == 1 and cell["published"] is None for cell in table["rows"]["semires"])
    assert "## my.jsonl" in (paths.reports / "table1.md").read_text()
