"""How many samples a run has: counted where the data is here, published where it is not."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from semires.pipeline.datasets import read_dataset
from semires.pipeline.paths import Paths
from semires.stages.data.checking.counts import PUBLISHED
from semires.stages.data.labeled import draw_labeled_images, load_labeled_images, split_refs
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.reading.sampling import image_plan

# Refs on the images that seed 0 draws, by split and share: the paper's figure 6 has what is left of all.
_DRAWN = {("refcoco", 0.01): 432, ("refcoco+", 0.01): 448, ("refcocog", 0.01): 429, ("refshapes", 0.05): 150}


ROOM_LEFT = 1.0
"""Refs by which batches of whole images are short of their size in the mean, where the data is not here: half of what
the image of a ref has besides it, which is 2.08 in RefCOCO's published 1%."""


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """Labeled and unlabeled train refs and val's expressions of a run, and where the numbers are from; `mutual_steps`:
    the steps of mutual learning."""

    labeled: int
    unlabeled: int
    val_expressions: int
    mutual_steps: int
    source: str


def count_samples(config: TrainConfig, paths: Paths, dataset: ReferDataset | None = None) -> RunCounts | None:
    """The counts of a run; None where the data is not here and nothing is published about it. dataset: the run's, where
    it has been read."""
    missing = paths.missing_files(config.split)
    if not missing:
        return _counted(config, paths, dataset or read_dataset(paths, config.split))
    published = PUBLISHED.get(config.split)
    if published is None:
        return None
    known = published["train"]
    is_begun = paths.has_annotations(config.split)
    lacks = f"there is no {', '.join(map(str, missing))}" if is_begun else f"the data is not in {paths.data}"
    source = f"published counts: {lacks}"
    if config.labeled_list is None:
        num_images = max(math.floor(config.labeled * known.images), 1)
        labeled = _DRAWN.get((config.split, config.labeled)) if config.labeled_seed == 0 else None
    else:
        num_images, labeled = len(load_labeled_images(config.labeled_list)), None
    if labeled is None:
        labeled = round(num_images * known.refs / known.images)
        source += ", labeled refs as many an image as all have"
    unlabeled = known.refs - labeled
    per_step: float = config.batch_unlabeled
    if config.is_grouped:
        refs_of_image = known.refs / known.images
        is_even = refs_of_image.is_integer()  # RefShapes' images have three each
        per_step -= config.batch_unlabeled % refs_of_image if is_even else ROOM_LEFT
        per_step = max(per_step, 1.0)
    return RunCounts(
        labeled=labeled,
        unlabeled=unlabeled,
        val_expressions=published["val"].expressions,
        mutual_steps=max(int(unlabeled * config.mutual_epochs / per_step), 1),
        source=source,
    )


def _counted(config: TrainConfig, paths: Paths, dataset: ReferDataset) -> RunCounts:
    refs = dataset.refs_of("train")
    image_ids = (
        draw_labeled_images(refs, config.labeled, config.labeled_seed)
        if config.labeled_list is None
        else load_labeled_images(config.labeled_list, dataset.image_names)
    )
    labeled, unlabeled = split_refs(refs, image_ids)
    return RunCounts(
        labeled=len(labeled),
        unlabeled=len(unlabeled),
        mutual_steps=_mutual_steps(config, unlabeled),
        val_expressions=sum(len(ref.expressions) for ref in dataset.refs_of("val")),
        source=f"counted in {paths.data}",
    )


def _mutual_steps(config: TrainConfig, unlabeled: Sequence[Ref]) -> int:
    """As many as `TrainData.plan` makes."""
    if not config.is_grouped or not unlabeled:
        return max(len(unlabeled) * config.mutual_epochs // config.batch_unlabeled, 1)
    plan = image_plan(
        np.array([len(ref.expressions) for ref in unlabeled]),
        np.array([ref.image_id for ref in unlabeled]),
        batch_size=config.batch_unlabeled,
        num_passes=config.mutual_epochs,
        most_refs=config.group.most_refs,
        most_expressions=config.group.expressions,
        seed=config.seed * 2 + 1,
    )
    return len(plan)
