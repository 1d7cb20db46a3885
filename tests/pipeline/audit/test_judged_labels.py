import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from semires.cache.errors import StoreError
from semires.pipeline.audit import judged_labels
from semires.pipeline.audit.judged_labels import FILE, JudgedLabels, find_burn_in, judge_labels
from semires.pipeline.audit.labels import study_labels
from semires.pipeline.paths import Paths
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
MakeRun = Callable[..., Path]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def judge(paths: Paths, refshapes: ReferDataset) -> Callable[..., tuple[dict[str, JudgedLabels], list[str]]]:
    return lambda run, **options: judge_labels(run, paths, CPU, ignore, refshapes, **options)


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The weights of each teacher that is measured."""
    seen: list[str] = []
    original = judged_labels._judge

    def note(opened: Any, measured_by: dict[str, Any], *rest: Any) -> JudgedLabels:
        seen.append(measured_by["weights_sha256"])
        return original(opened, measured_by, *rest)

    monkeypatch.setattr(judged_labels, "_judge", note)
    return seen


def test_judge_labels__what_a_study_of_labels_counts(
    judge: Callable[..., Any], make_run: MakeRun, paths: Paths, refshapes: ReferDataset
) -> None:
    run = make_run()
    found, lines = judge(run)
    assert (list(found), lines) == (["burn-in", "final"], [])
    final = found["final"]
    known = [ref for ref in refshapes.refs_of("train") if ref.image_id not in RunFolder(run).read_labeled_images()]
    assert sorted(final.ref_ids.tolist()) == [ref.ref_id for ref in known]
    assert not np.array_equal(final.intersections_before, found["burn-in"].intersections_before)

    study = study_labels(run, paths, CPU, ignore)
    own = next(row.scores for row in study.rows if row.refinement.name.startswith("the run's own"))
    change = final.ious_after - final.ious_before
    assert (own.positive, own.negative) == ((change > 0).sum(), (change < 0).sum())
    assert own.positive + own.negative > 0
    assert own.matched == final.matched.sum()
    assert own.by_group["all"].miou == pytest.approx(100 * final.ious_after.mean())
    area_of = {ref.ref_id: refshapes.mask(ref).mean() for ref in known}
    assert final.areas / 96**2 == pytest.approx([area_of[ref_id] for ref_id in final.ref_ids.tolist()], abs=0.01)


def test_judge_labels__kept_while_nothing_changes(
    judge: Callable[..., Any], make_run: MakeRun, measured: list[str]
) -> None:
    run = make_run()
    first, _ = judge(run)
    assert len(measured) == 2
    again, _ = judge(run)
    assert len(measured) == 2
    for name, labels in first.items():
        assert np.array_equal(labels.unions_after, again[name].unions_after)
        assert labels.matched.dtype == again[name].matched.dtype == bool

    # Other weights: the final teacher alone is measured again.
    torch.manual_seed(7)
    RunFolder(run).save_best(RunFolder(run).read_config().build_model(pretrained=False).state_dict())
    changed, _ = judge(run)
    assert measured[2:] == [RunFolder(run).best_sha256()]
    assert np.array_equal(changed["burn-in"].unions_after, first["burn-in"].unions_after)
    assert not np.array_equal(changed["final"].unions_before, first["final"].unions_before)

    settings = json.loads((run / "config.json").read_text())
    settings["match"]["inter1"] = 0.6
    (run / "config.json").write_text(json.dumps(settings))
    judge(run)
    assert len(measured) == 5


def test_judge_labels__one_that_was_damaged_is_measured_anew(
    judge: Callable[..., Any], make_run: MakeRun, measured: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = make_run()
    (run / FILE).write_bytes(b"PK nothing")
    judge(run, with_burn_in=False)
    assert len(measured) == 1
    assert "expected judged labels, found other or damaged ones: measured anew" in capsys.readouterr().out
    judge(run)  # the burn-in's beside what is kept
    judge(run)
    assert len(measured) == 2


def test_judge_labels__where_the_store_is_gone(
    judge: Callable[..., Any], make_run: MakeRun, paths: Paths, measured: list[str]
) -> None:
    run = make_run()
    paths.store("refshapes").unlink()
    with pytest.raises(StoreError, match=r"refshapes\.zarr"):
        judge(run)
    assert measured == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_judge_labels__a_folder_that_cannot_be_written(judge: Callable[..., Any], make_run: MakeRun) -> None:
    run = make_run()
    run.chmod(0o500)
    found, _ = judge(run)
    assert not (run / FILE).exists()
    assert len(found) == 2


@pytest.mark.parametrize("settings", [{"method": "baseline"}, {"refine": False}, {"method": "supervised"}])
def test_judge_labels__nothing_is_refined(
    judge: Callable[..., Any], make_run: MakeRun, settings: dict[str, Any]
) -> None:
    with pytest.raises(InputError, match="expected a run that refines labels"):
        judge(make_run(**settings))


def test_find_burn_in__beside_a_run_that_was_moved(make_run: MakeRun, tmp_path: Path) -> None:
    run = make_run()
    moved = (tmp_path / "runs").rename(tmp_path / "elsewhere")
    found = find_burn_in(moved / run.name)
    assert isinstance(found, RunFolder)
    assert found.path == moved / "burn-in"


def test_find_burn_in__others_or_none(make_run: MakeRun) -> None:
    run = make_run()
    weights = run.parent / "burn-in" / "best.safetensors"
    weights.write_bytes((run / "best.safetensors").read_bytes())
    assert str(find_burn_in(run)).endswith("found others")
    weights.unlink()
    assert str(find_burn_in(run)).endswith("found none")
    (run / "sources.json").unlink()
    assert find_burn_in(run) == "the run does not say which it began with"
