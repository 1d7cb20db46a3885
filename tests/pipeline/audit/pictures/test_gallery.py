import io
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semires.pipeline.audit.figure6 import audit_run
from semires.pipeline.audit.judged_labels import judge_labels
from semires.pipeline.audit.pictures.gallery import gallery
from semires.pipeline.audit.pictures.gallery_rows import LABEL_GROUPS, PREDICTION_GROUPS
from semires.pipeline.audit.pictures.picture import LONGEST
from semires.pipeline.paths import Paths
from semires.pipeline.scoring.measuring import measure_target
from semires.pipeline.scoring.targets import choose_target
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
MakeRun = Callable[..., Path]


def ignore(what: str, done: int, total: int, note: str = "") -> None:
    pass


def test_gallery__rows_are_what_was_judged(make_run: MakeRun, paths: Paths, refshapes: ReferDataset) -> None:
    run = make_run()
    found = gallery(run, paths, CPU, ignore, dataset=refshapes, num_rows=12)
    assert found.notes == ()
    judged, _ = judge_labels(run, paths, CPU, ignore, refshapes, with_burn_in=False)
    labels = judged["final"]
    place = {ref_id: number for number, ref_id in enumerate(labels.ref_ids.tolist())}
    of_labels = [row for row in found.rows if row.outcome != "prediction"]
    assert {row.group for row in of_labels} <= set(LABEL_GROUPS)
    assert len({row.ref_id for row in of_labels}) == len(of_labels)
    refs = {ref.ref_id: ref for ref in refshapes.refs}
    for row in of_labels:
        at = place[row.ref_id]
        before, after = labels.ious_before[at], labels.ious_after[at]
        assert (row.iou_before, row.iou_after) == (pytest.approx(before), pytest.approx(after))
        if labels.matched[at]:
            assert row.outcome == ("positive" if after > before else "negative" if after < before else "none")
        else:
            assert row.outcome == "unmatched"
        assert row.expression == refs[row.ref_id].raw_expressions[0]
        assert any(each.is_taken for each in row.candidates) == bool(labels.matched[at])
        assert [picture.kind for picture in row.pictures] == ["image", "candidates", "label", "refined", "truth"]
        assert row.size in ("small", "medium", "large")
    gains = labels.ious_after - labels.ious_before
    best = next((row for row in of_labels if row.group == "largest gain"), None)
    assert (best is None) == (gains.max() <= 0)
    if best is not None:
        assert gains[place[best.ref_id]] == gains.max()


def test_gallery__predictions_are_what_evaluation_measured(
    make_run: MakeRun, paths: Paths, refshapes: ReferDataset
) -> None:
    run = make_run(method="supervised")
    found = gallery(run, paths, CPU, ignore, dataset=refshapes, num_rows=6)
    assert found.notes == (f"{run}: no labels are shown: a supervised run refines none",)
    assert Counter(row.group for row in found.rows) == dict.fromkeys(PREDICTION_GROUPS, 2)
    target = choose_target(run, paths, ignore, refshapes, splits=("val",))
    counts = measure_target(target, CPU, ignore).by_split["val"].counts
    first = {ref_id: number for number, ref_id in reversed(list(enumerate(counts.ref_ids.tolist())))}
    for row in found.rows:
        assert row.iou_after == pytest.approx(counts.pixels.ious[first[row.ref_id]], abs=1e-3)
        assert (row.split, row.iou_before, row.candidates) == ("val", None, ())
        assert [picture.kind for picture in row.pictures] == ["image", "prediction", "truth"]
    best, worst = found.rows[0].iou_after, found.rows[2].iou_after
    ious = [counts.pixels.ious[number] for number in first.values()]
    assert (best, worst) == (pytest.approx(max(ious), abs=1e-3), pytest.approx(min(ious), abs=1e-3))


def test_gallery__pictures_are_small_decode_and_are_the_same_again(
    make_run: MakeRun, paths: Paths, refshapes: ReferDataset
) -> None:
    run = make_run()
    found, again = (gallery(run, paths, CPU, ignore, dataset=refshapes, num_rows=6) for _ in range(2))
    assert found == again
    height, width = refshapes.image_size(found.rows[0].image_id)
    for row in found.rows:
        for picture in row.pictures:
            decoded = Image.open(io.BytesIO(picture.content))
            assert decoded.size == (LONGEST, round(LONGEST * height / width))
            assert picture.mime == Image.MIME[decoded.format or ""]
            assert picture.alt
    assert sum(len(picture.content) for row in found.rows for picture in row.pictures) < len(found.rows) * 100_000
    # The truth's tint is where the truth is.
    row = found.rows[0]
    ref = next(ref for ref in refshapes.refs if ref.ref_id == row.ref_id)
    mask = np.array(Image.fromarray(refshapes.mask(ref)).resize((LONGEST, round(LONGEST * height / width))))
    truth = np.array(Image.open(io.BytesIO(row.pictures[-1].content)).convert("RGB")).astype(int)
    plain = np.array(Image.open(io.BytesIO(row.pictures[0].content)).convert("RGB")).astype(int)
    redder = (truth[..., 0] - truth[..., 2]) - (plain[..., 0] - plain[..., 2])
    assert redder[mask].mean() > redder[~mask].mean() + 20


def test_gallery__without_a_store_predictions_alone(make_run: MakeRun, paths: Paths, refshapes: ReferDataset) -> None:
    run = make_run()
    paths.store("refshapes").unlink()
    found = gallery(run, paths, CPU, ignore, dataset=refshapes, num_rows=3)
    assert [row.outcome for row in found.rows] == ["prediction"] * 3
    assert len(found.notes) == 1
    assert f"{run}: no labels are shown: " in found.notes[0]


def test_gallery__an_unfinished_run(make_run: MakeRun, paths: Paths, refshapes: ReferDataset) -> None:
    run = make_run()
    (run / "result.json").unlink()
    with pytest.raises(InputError, match="expected a finished run, found one in"):
        gallery(run, paths, CPU, ignore, dataset=refshapes)
    assert not RunFolder(run).is_finished


def test_gallery__refs_whose_masks_nobody_knows_are_not_shown(
    make_run: MakeRun,
    paths: Paths,
    refshapes: ReferDataset,
    without_masks: Callable[..., ReferDataset],
) -> None:
    run = make_run()
    labeled = RunFolder(run).read_labeled_images()
    refs = [ref for ref in refshapes.refs_of("train") if ref.image_id not in labeled]
    known = {ref.ref_id for ref in refs[::2]}
    own = without_masks([ref.ref_id for ref in refs[1::2]])
    found = gallery(run, paths, CPU, ignore, dataset=own, num_rows=36)
    shown = [row for row in found.rows if row.outcome != "prediction"]
    assert {row.ref_id for row in shown} == known
    audit = audit_run(run, paths, CPU, ignore, dataset=own)
    assert (audit.num_refs, audit.without_mask) == (len(known), len(refs) - len(known))

    own = without_masks([ref.ref_id for ref in refs])
    found = gallery(run, paths, CPU, ignore, dataset=own, num_rows=3)
    assert {row.outcome for row in found.rows} == {"prediction"}
    assert "whose masks are known, found none" in found.notes[0]
