"""The unlabeled train refs of a finished run, ready to be labeled by a teacher and judged by their hidden masks.

Axes: B refs of a batch, E expressions, R refs.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.cache.views import CandidateView
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.stage_runs import lacks_candidates, prepare_candidates
from semires.stages.data.errors import InputError
from semires.stages.data.labeled import split_refs
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.refshapes.shapes import CATEGORIES
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.interface import ResModel
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run import check_candidates
from semires.stages.train.run_folder import RunFolder

SIZES = ("small", "medium", "large")
KINDS = ("simple", "composite")


@dataclass(frozen=True, kw_only=True)
class Unlabeled:
    """The unlabeled train refs of a run on images of which a ref's mask is known, in the order of image and ref ids,
    as `samples` with candidates in the same order. model: the run's best, on the CPU. without_mask: unlabeled refs of
    the whole data set whose masks nobody knows."""

    run: Path
    config: TrainConfig
    model: ResModel
    dataset: ReferDataset
    refs: tuple[Ref, ...]
    samples: RefSamples
    store: str | Path
    without_mask: int

    @property
    def known(self) -> list[Ref]:
        """Those whose masks are known."""
        return [ref for ref in self.refs if ref.has_mask]


def open_unlabeled(
    run: Path,
    paths: Paths,
    on_progress: OnProgress,
    *,
    dataset: ReferDataset | None = None,
    store: str | Path | None = None,
    makes_candidates: bool = True,
) -> Unlabeled:
    """The unlabeled refs of a finished run. dataset: the run's, where it is loaded already. store: None for the data
    set's own. makes_candidates: whether those of RefShapes are made where they are missing, which takes minutes.

    InputError and StoreError where the run is not finished, has no unlabeled refs with masks, or the store lacks an
    image of one.
    """
    folder = RunFolder(run)
    config, model = folder.load_model()
    require_finished(folder)
    dataset = dataset or load_dataset(paths, config.split, on_progress)
    require_whole(dataset, paths, ("train",))
    _, refs = split_refs(dataset.refs_of("train"), folder.read_labeled_images())
    if not refs:
        raise InputError(f"expected a run with unlabeled train refs, found that every image of {run} is labeled")
    num_without = sum(not ref.has_mask for ref in refs)
    measured = {ref.image_id for ref in refs if ref.has_mask}
    if not measured:
        raise InputError(
            f"expected unlabeled train refs whose masks are known, found none of {num_without}: train with a smaller "
            "--labeled, so that some masks stay hidden"
        )
    refs = [ref for ref in refs if ref.image_id in measured]
    store, size = store or paths.store(config.split), model.image_size
    if not (makes_candidates and lacks_candidates(paths, dataset, store)):
        check_candidates(store, refs, config)  # before the view, which may take long
    prepare_candidates(paths, dataset, size, store, on_progress)
    refs = sorted(refs, key=lambda ref: (ref.image_id, ref.ref_id))
    return Unlabeled(
        run=run,
        config=config,
        model=model,
        dataset=dataset,
        refs=tuple(refs),
        samples=RefSamples(dataset, refs, model.tokenizer, size, CandidateView(store, size), text=config.text),
        store=store,
        without_mask=num_without,
    )


def require_finished(folder: RunFolder) -> None:
    """InputError unless the run came to its end."""
    if folder.is_started and not folder.is_finished:
        raise InputError(
            f"expected a finished run, found one in {folder.path} that is not: type its `semires train` again"
        )
    folder.read_result()


def whole_images(samples: RefSamples, most: int | None, batch_size: int) -> list[NDArray[np.int64]]:
    """Keys of every ref of `samples`, those of an image in a row, in batches that begin a new image once they have
    `batch_size` refs: int64 [B, 1 + E] with the first `most` expressions of each ref, None for all, then -1."""
    num_expressions = samples.num_expressions
    numbers = np.arange(num_expressions.max() if most is None else min(most, num_expressions.max()))
    expressions = np.where(numbers < num_expressions[:, None], numbers, -1)
    keys = np.column_stack([np.arange(len(samples)), expressions])
    image_ids = samples.image_ids.numpy()
    cuts, begun = [], 0
    for start in (1 + np.flatnonzero(image_ids[1:] != image_ids[:-1])).tolist():
        if start - begun >= batch_size:
            cuts.append(start)
            begun = start
    return np.split(keys, cuts)


def size_limits(areas: Tensor) -> tuple[float, float]:
    """The largest areas of the smallest and of the middle third of refs; areas: int64 [R]."""
    low, high = np.quantile(areas.numpy(), [1 / 3, 2 / 3]).tolist()
    return low, high


def size_groups(areas: Tensor) -> dict[str, Tensor]:
    """Thirds of the refs by the areas of their objects, int64 [R]: which refs are in each, bool [R].

    COCO's limits would call nearly all of RefShapes large.
    """
    low, high = size_limits(areas)
    return dict(zip(SIZES, (areas <= low, (areas > low) & (areas <= high), areas > high), strict=True))


def kind_groups(dataset: ReferDataset, refs: Sequence[Ref]) -> dict[str, Tensor]:
    """RefShapes' objects of one colour and those of several, bool [R]; {} where the data set does not know."""
    if dataset.spec.name != "refshapes":
        return {}
    composites = {category.name for category in CATEGORIES if category.is_composite}
    is_composite = torch.tensor([dataset.category(ref) in composites for ref in refs])
    return dict(zip(KINDS, (~is_composite, is_composite), strict=True))
