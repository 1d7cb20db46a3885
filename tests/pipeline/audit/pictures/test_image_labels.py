from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.pipeline.audit.judged_labels import judge_labels
from semires.pipeline.audit.pictures.image_labels import ImageLabels, label_image
from semires.pipeline.paths import Paths
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset

CPU = torch.device("cpu")
UNLABELED = 3
MakeRun = Callable[..., Path]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


@pytest.fixture
def candidates(studied_store: Path) -> Candidates:
    return CandidateStore(studied_store)[UNLABELED]


@pytest.fixture
def label(paths: Paths, candidates: Candidates) -> Callable[..., ImageLabels]:
    def make(run: Path, path: Path | None = None, **options: object) -> ImageLabels:
        found, _ = label_image(run, candidates, path, paths, CPU, ignore, **options)  # type: ignore[arg-type]
        return found

    return make


@pytest.mark.parametrize("method", ["semires", "semires-cc"])
def test_label_image__as_the_audit_judges_it(
    label: Callable[..., ImageLabels], make_run: MakeRun, paths: Paths, refshapes: ReferDataset, method: str
) -> None:
    run = make_run(method=method)
    judged, _ = judge_labels(run, paths, CPU, ignore, refshapes, with_burn_in=False)
    final = judged["final"]
    found = label(run)
    assert (found.method, found.matching) == (method, "CPI 0.5/0.9")
    assert [each.ref_id for each in found.labels] == [r.ref_id for r in refshapes.refs if r.image_id == UNLABELED]
    for each in found.labels:
        at = final.ref_ids.tolist().index(each.ref_id)
        assert each.iou_before == pytest.approx(final.ious_before[at])
        assert each.iou_after == pytest.approx(final.ious_after[at])
        assert each.is_matched == final.matched[at] == any(one.is_taken for one in each.candidates)
        assert each.note == ""


def test_label_image__one_ref_or_an_expression(
    label: Callable[..., ImageLabels], make_run: MakeRun, refshapes: ReferDataset
) -> None:
    run = make_run()
    ref = next(ref for ref in refshapes.refs if ref.image_id == UNLABELED)
    (of_ref,) = label(run, ref_id=ref.ref_id).labels
    path = refshapes.image_path(UNLABELED)
    typed, other = label(run, path, expressions=[ref.raw_expressions[0], "</b> left"]).labels
    assert np.array_equal(typed.refined, of_ref.refined)
    assert (typed.ref_id, typed.truth, typed.iou_before) == (None, None, None)
    assert other.expression == "</b> left"
    assert len(other.candidates) == len(of_ref.candidates)


def test_label_image__a_labeled_ref_is_noted(
    paths: Paths, studied_store: Path, make_run: MakeRun, refshapes: ReferDataset
) -> None:
    found, path = label_image(make_run(), CandidateStore(studied_store)[1], None, paths, CPU, ignore)
    assert path == refshapes.image_path(1)
    assert {each.note for each in found.labels} == {"a labeled ref: the run learned from its mask, not from this label"}


def test_label_image__of_a_run_that_refines_nothing_says_so(
    label: Callable[..., ImageLabels], make_run: MakeRun
) -> None:
    assert label(make_run(method="baseline")).matching == "CPI 0.5/0.9 (the run itself refines no labels)"


def test_label_image__what_is_not_there(
    label: Callable[..., ImageLabels], make_run: MakeRun, refshapes: ReferDataset, tmp_path: Path
) -> None:
    run = make_run()
    known = [str(ref.ref_id) for ref in refshapes.refs if ref.image_id == UNLABELED]
    with pytest.raises(InputError, match=f"--ref: expected a ref of image 3, found 99999; it has {', '.join(known)}"):
        label(run, ref_id=99_999)
    with pytest.raises(InputError, match="--expression: expected words"):
        label(run, expressions=["  "])
    with pytest.raises(InputError, match="found no"):
        label(tmp_path / "none")
