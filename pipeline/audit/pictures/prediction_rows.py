"""Rows of a gallery with predictions on an evaluation split.

Axes: S side of the training images.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from semires.pipeline.audit.pictures.gallery_rows import (
    PREDICTION_GROUPS,
    GalleryRow,
    Group,
    choose_rows,
    iou,
    size_name,
)
from semires.pipeline.audit.pictures.picture import masked, picture, share_text, small_image
from semires.pipeline.audit.unlabeled import size_limits
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.scoring.measuring import measure_target
from semires.pipeline.scoring.targets import choose_target
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.train.engine.precision import autocast
from semires.stages.train.evaluation import BATCH_SIZE
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.models.normalization import normalize
from semires.stages.train.reading.loading import load_batches
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.views import plain_view


def prediction_rows(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    dataset: ReferDataset,
    num_rows: int,
    seed: int,
) -> list[GalleryRow]:
    """About `num_rows` rows of val, or of the first evaluation split that there is: the best, the worst and random
    predictions of the run's best model. InputError where there is no such split."""
    target = choose_target(run, paths, on_progress, dataset)
    split = "val" if "val" in target.splits else target.splits[0]
    measured = measure_target(dataclasses.replace(target, splits=(split,)), device, on_progress)
    counts = measured.by_split[split].counts
    ref_ids, firsts = np.unique(counts.ref_ids, return_index=True)  # of each ref the first expression
    refs = {ref.ref_id: ref for ref in dataset.refs_of(split) if ref.ann_ids}  # what means nothing has no truth
    shown = np.isin(ref_ids, list(refs))
    ref_ids, firsts = ref_ids[shown], firsts[shown]
    ious = counts.pixels.ious[firsts]
    orders = (
        np.argsort(-ious, kind="stable"),
        np.argsort(ious, kind="stable"),
        np.random.default_rng(seed).permutation(len(ious)),
    )
    chosen = choose_rows(list(zip(PREDICTION_GROUPS, orders, strict=True)), num_rows)
    limits = size_limits(torch.from_numpy(counts.areas[firsts]))
    of_rows = [refs[int(ref_ids[row])] for _, row in chosen]
    groups = [group for group, _ in chosen]
    return list(_drawn_predictions(run, dataset, of_rows, groups, limits, device, on_progress))


def _drawn_predictions(
    run: Path,
    dataset: ReferDataset,
    refs: Sequence[Ref],
    groups: Sequence[Group],
    limits: tuple[float, float],
    device: torch.device,
    on_progress: OnProgress,
) -> Iterator[GalleryRow]:
    config, model = RunFolder(run).load_model()
    teacher = EmaTeacher(model.to(device))
    samples = RefSamples(dataset, refs, model.tokenizer, model.image_size, text=config.eval_text)
    keys = [(index, 0) for index in range(len(refs))]
    batches = [keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE)]
    for of_batch, loaded in zip(batches, load_batches(samples, batches, num_workers=0), strict=True):
        batch = loaded.to(device)
        with autocast(config.resolved(device).precision, device):
            predicted, _ = teacher.pseudo_label(
                normalize(plain_view(batch.images)), batch.input_ids, batch.attention_mask
            )
        for (index, _), mask, truth in zip(of_batch, predicted.cpu(), loaded.masks, strict=True):
            ref, found = refs[index], iou(mask, truth)
            alt = f"the prediction: {share_text(mask)}, IoU {found:.2f} with the truth"
            image = small_image(dataset, ref.image_id)
            yield GalleryRow(
                group=groups[index],
                ref_id=ref.ref_id,
                image_id=ref.image_id,
                split=ref.split,
                expression=ref.texts(config.eval_text)[0],
                outcome="prediction",
                size=size_name(int(truth.sum()), limits),
                iou_before=None,
                iou_after=found,
                pictures=(
                    picture("image", Image.fromarray(image), f"image {ref.image_id}"),
                    masked("prediction", image, mask, alt),
                    masked("truth", image, truth, f"the truth: {share_text(truth)}"),
                ),
            )
        on_progress("predictions drawn", of_batch[-1][0] + 1, len(refs))
