"""How many samples a run has: counted where the data is here, published where it is not."""

import math
from dataclasses import dataclass

from semires.pipeline.datasets import read_dataset
from semires.pipeline.paths import Paths
from semires.stages.data.labeled import draw_labeled_images, load_labeled_images, split_refs
from semires.stages.train.config import TrainConfig


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Train refs and images, and the expressions of val."""

    refs: int
    images: int
    val_expressions: int


PUBLISHED = {
    "refcoco": SplitCounts(refs=42_404, images=16_994, val_expressions=10_834),
    "refcoco+": SplitCounts(refs=42_278, images=16_992, val_expressions=10_758),
    "refcocog": SplitCounts(refs=42_226, images=21_899, val_expressions=4_896),
    # As its seed draws it.
    "refshapes": SplitCounts(refs=3_000, images=1_000, val_expressions=1_813),
}
"""Of the data sets as REFER has them; of G-Ref the UMD split."""

# Refs on the images that seed 0 draws, by split and share: the paper's figure 6 has what is left of all.
_DRAWN = {("refcoco", 0.01): 432, ("refcoco+", 0.01): 448, ("refcocog", 0.01): 429, ("refshapes", 0.05): 150}


@dataclass(frozen=True, kw_only=True)
class RunCounts:
    """Labeled and unlabeled train refs and val's expressions of a run, and where the numbers are from."""

    labeled: int
    unlabeled: int
    val_expressions: int
    source: str


def count_samples(config: TrainConfig, paths: Paths) -> RunCounts | None:
    """The counts of a run; None where the data is not here and nothing is published about it."""
    if not paths.missing_files(config.split):
        return _counted(config, paths)
    known = PUBLISHED.get(config.split)
    if known is None:
        return None
    source = f"published counts: the data is not in {paths.data}"
    if config.labeled_list is None:
        num_images = max(math.floor(config.labeled * known.images), 1)
        labeled = _DRAWN.get((config.split, config.labeled)) if config.labeled_seed == 0 else None
    else:
        num_images, labeled = len(load_labeled_images(config.labeled_list)), None
    if labeled is None:
        labeled = round(num_images * known.refs / known.images)
        source += ", labeled refs as many an image as all have"
    return RunCounts(
        labeled=labeled,
        unlabeled=known.refs - labeled,
        val_expressions=known.val_expressions,
        source=source,
    )


def _counted(config: TrainConfig, paths: Paths) -> RunCounts:
    dataset = read_dataset(paths, config.split)
    refs = dataset.refs_of("train")
    image_ids = (
        draw_labeled_images(refs, config.labeled, config.labeled_seed)
        if config.labeled_list is None
        else load_labeled_images(config.labeled_list)
    )
    labeled, unlabeled = split_refs(refs, image_ids)
    return RunCounts(
        labeled=len(labeled),
        unlabeled=len(unlabeled),
        val_expressions=sum(len(ref.expressions) for ref in dataset.refs_of("val")),
        source=f"counted in {paths.data}",
    )
