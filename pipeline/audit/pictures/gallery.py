"""Rows of pictures as in the paper's Figures 3 to 5: what refinement made of labels, and what a run predicts.

Axes: R refs, S side of the training images.
"""

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from semires.cache.errors import StoreError
from semires.pipeline.audit.judged_labels import JudgedLabels, judge_labels
from semires.pipeline.audit.labels import label_batches
from semires.pipeline.audit.pictures.gallery_rows import (
    LABEL_GROUPS,
    GalleryRow,
    Group,
    Outcome,
    choose_rows,
    iou,
    size_name,
)
from semires.pipeline.audit.pictures.picture import masked, picture, share_text, small_image
from semires.pipeline.audit.pictures.prediction_rows import prediction_rows
from semires.pipeline.audit.pictures.reasons import judgements
from semires.pipeline.audit.refinements import most_expressions, own_refinement
from semires.pipeline.audit.unlabeled import (
    Unlabeled,
    open_unlabeled,
    require_finished,
    size_limits,
    whole_images,
)
from semires.pipeline.datasets import load_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.contact_sheet import all_colored
from semires.stages.data.errors import InputError
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.matching import unpack_bits
from semires.stages.train.run_folder import RunFolder

SHARE_OF_LABELS = 2 / 3  # of the rows of a run that refines


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """The rows of a run, and what could not be shown, a line each."""

    run: str
    rows: tuple[GalleryRow, ...]
    notes: tuple[str, ...]


def gallery(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    dataset: ReferDataset | None = None,
    store: str | Path | None = None,
    num_rows: int = 60,
    seed: int = 0,
) -> Gallery:
    """About `num_rows` rows of a finished run, a third of them predictions on val, or on the first evaluation split
    that there is; the others labels of unlabeled train refs whose masks are known, by the run's best model. Each group
    takes its refs from those that the ones before it left. Of a run without refinement all are predictions.

    dataset: the run's, where it is loaded already. store: None for the data set's own. seed: of the random rows.
    InputError where there is no finished run or no data; what else is missing is a note.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    require_finished(folder)
    dataset = dataset or load_dataset(paths, config.split, on_progress)
    rows: list[GalleryRow] = []
    notes = []
    if config.is_refined:
        num_labels = round(num_rows * SHARE_OF_LABELS)
        try:
            rows += _label_rows(run, paths, device, on_progress, dataset, store, num_labels, seed)
        except (InputError, StoreError) as error:
            notes.append(f"{run}: no labels are shown: {error}")
    else:
        notes.append(f"{run}: no labels are shown: a {config.method} run refines none")
    try:
        rows += prediction_rows(run, paths, device, on_progress, dataset, num_rows - len(rows), seed)
    except InputError as error:
        notes.append(f"{run}: no predictions are shown: {error}")
    return Gallery(run=str(run), rows=tuple(rows), notes=tuple(notes))


def _label_rows(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    dataset: ReferDataset,
    store: str | Path | None,
    num_rows: int,
    seed: int,
) -> list[GalleryRow]:
    judged, _ = judge_labels(run, paths, device, on_progress, dataset, store=store, with_burn_in=False)
    labels = judged["final"]
    group_of = {int(labels.ref_ids[row]): group for group, row in choose_rows(_label_ranks(labels, seed), num_rows)}
    opened = open_unlabeled(run, paths, on_progress, dataset=dataset, store=store, makes_candidates=False)
    limits = size_limits(torch.from_numpy(labels.areas))
    drawn = {row.ref_id: row for row in _drawn_labels(opened, group_of, limits, device, on_progress)}
    return [drawn[ref_id] for ref_id in group_of]


def _label_ranks(labels: JudgedLabels, seed: int) -> list[tuple[Group, NDArray[np.int64]]]:
    gains = labels.ious_after - labels.ious_before
    by_gain = np.argsort(-gains, kind="stable")
    by_loss = np.argsort(gains, kind="stable")
    orders = (
        by_gain[gains[by_gain] > 0],
        by_loss[gains[by_loss] < 0],
        np.argsort(labels.ious_after, kind="stable"),
        np.random.default_rng(seed).permutation(len(gains)),
    )
    return list(zip(LABEL_GROUPS, orders, strict=True))


def _drawn_labels(
    opened: Unlabeled,
    group_of: dict[int, Group],
    limits: tuple[float, float],
    device: torch.device,
    on_progress: OnProgress,
) -> Iterator[GalleryRow]:
    """The rows of the refs of `group_of`, in the order of their images; these are read whole, as refs may compete."""
    own = own_refinement(opened.config)
    chosen = (dataclasses.replace(own, match=None), own)
    refs = {ref.ref_id: ref for ref in opened.refs}
    images = {refs[ref_id].image_id for ref_id in group_of}
    image_ids = opened.samples.image_ids.numpy()
    plan = [
        keys
        for keys in whole_images(opened.samples, most_expressions(chosen), 1)
        if int(image_ids[keys[0, 0]]) in images
    ]
    precision = opened.config.resolved(device).precision
    teacher = EmaTeacher(opened.model.to(device))
    for batch, made in label_batches(opened.samples, plan, teacher, chosen, precision, device, on_progress):
        (labels, _), (refined, matched) = made
        assert matched is not None
        for number, ref_id in enumerate(batch.ref_ids.tolist()):
            if ref_id not in group_of:
                continue
            low, high = batch.offsets[number : number + 2].tolist()
            yield _label_row(
                opened,
                refs[ref_id],
                group_of[ref_id],
                limits,
                candidates=batch.candidates[low:high].cpu(),
                label=labels[number].cpu(),
                refined=refined[number].cpu(),
                truth=batch.masks[number].cpu(),
                is_matched=bool(matched[number]),
            )


def _label_row(
    opened: Unlabeled,
    ref: Ref,
    group: Group,
    limits: tuple[float, float],
    *,
    candidates: Tensor,
    label: Tensor,
    refined: Tensor,
    truth: Tensor,
    is_matched: bool,
) -> GalleryRow:
    before, after = iou(label, truth), iou(refined, truth)
    outcome: Outcome = "positive" if after > before else "negative" if after < before else "none"
    judged = judgements(candidates, label, opened.config.match)
    taken = sum(each.is_taken for each in judged)
    image = small_image(opened.dataset, ref.image_id)
    masks = unpack_bits(candidates, len(label)).numpy()
    return GalleryRow(
        group=group,
        ref_id=ref.ref_id,
        image_id=ref.image_id,
        split=ref.split,
        expression=ref.texts(opened.config.text)[0],
        outcome=outcome if is_matched else "unmatched",
        size=size_name(int(truth.sum()), limits),
        iou_before=before,
        iou_after=after,
        pictures=(
            picture("image", Image.fromarray(image), f"image {ref.image_id}"),
            picture("candidates", all_colored(image, masks), f"{len(candidates)} candidate masks, each in a colour"),
            masked("label", image, label, f"the teacher's label: {share_text(label)}, IoU {before:.2f} with the truth"),
            masked(
                "refined",
                image,
                refined,
                f"the refined label, {taken} of the candidates: {share_text(refined)}, IoU {after:.2f} with the truth"
                if is_matched
                else "the refined label: no candidate qualified, the teacher's label stays",
            ),
            masked("truth", image, truth, f"the truth, hidden in training: {share_text(truth)}"),
        ),
        candidates=tuple(each for each in judged if each.iou > 0),
        num_candidates=len(candidates),
    )
