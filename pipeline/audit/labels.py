"""`semires study labels`: what refinements make of the labels of a run's teacher, side by side; nothing is trained.

The teacher reads each unlabeled train ref once, in batches of whole images; every refinement starts from the same
probabilities. In memory at a time: one batch, its probabilities and one refinement's labels; of all refs five numbers a
refinement; and the resized images, masks and candidates themselves only where `RefSamples` keeps them.

Axes: R refs.
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.cache.views import CandidateView
from semires.pipeline.audit.label_counts import LabelCounts, LabelScores, label_scores
from semires.pipeline.audit.refinements import Refinement, most_expressions, refined_labels, refinements
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.stage_runs import lacks_candidates, prepare_candidates
from semires.stages.data.errors import InputError
from semires.stages.data.labeled import split_refs
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.refshapes.shapes import CATEGORIES
from semires.stages.train.engine.precision import Precision, autocast
from semires.stages.train.evaluation import BATCH_SIZE
from semires.stages.train.labels.group_labels import expression_probs
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run import check_candidates
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.views import plain_view

SIZES = ("small", "medium", "large")


@dataclass(frozen=True, kw_only=True)
class StudiedLabels:
    """A refinement with the scores of its labels."""

    refinement: Refinement
    scores: LabelScores


@dataclass(frozen=True, kw_only=True)
class LabelStudy:
    """All refinements of the labels of one run's teacher.

    expressions: the most that consensus reads of a ref, None for all. num_refs, num_images: those measured, of which
    the masks are known; num_expressions: those that the teacher read. without_mask: unlabeled refs that are not
    measured, because nobody knows their masks.
    size_limits: the largest share of its image, in per cent, of a small and of a medium object. dropped_refs: of the
    whole data set, on loading. seconds: of the teacher's pass and the refinements.
    """

    run: str
    weights_sha256: str
    method: str
    split: str
    store: str
    text: str
    precision: Precision
    device: str
    image_size: int
    expressions: int | None
    num_refs: int
    num_images: int
    num_expressions: int
    dropped_refs: int
    without_mask: int
    size_limits: tuple[float, float]
    seconds: float
    rows: tuple[StudiedLabels, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def study_labels(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    expressions: int | None = 2,
    store: str | Path | None = None,
) -> LabelStudy:
    """Study the labels that a finished run's best model gives the run's unlabeled train refs.

    The teacher sees plain images (the weak view without blur) in the run's precision and reads the text that training
    reads: of each ref the first expression, which stands for the one that the student reads, and for consensus up to
    `expressions` in all, in file order; None: all.

    InputError and StoreError, before the teacher reads anything, where the run is not finished, has no unlabeled refs
    with masks, or the store lacks an image of one. Refs without a mask are not measured; on images of others they
    compete with these as in training.
    """
    folder = RunFolder(run)
    config, model = folder.load_model()
    if not folder.is_finished:
        raise InputError(f"expected a finished run, found one in {run} that is not: type its `semires train` again")
    size = model.image_size
    dataset = load_dataset(paths, config.split, on_progress)
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
    store = store or paths.store(config.split)
    if not lacks_candidates(paths, dataset, store):
        check_candidates(store, refs, config)  # before the view, which may take long
    prepare_candidates(paths, dataset, size, store, on_progress)

    refs = sorted(refs, key=lambda ref: (ref.image_id, ref.ref_id))
    samples = RefSamples(dataset, refs, model.tokenizer, size, CandidateView(store, size), text=config.text)
    chosen = refinements(config, expressions)
    plan = whole_images(samples, most_expressions(chosen), BATCH_SIZE)
    precision = config.resolved(device).precision
    started = time.perf_counter()
    counts, areas = count_labels(samples, plan, EmaTeacher(model.to(device)), chosen, precision, device, on_progress)
    limits = np.quantile(areas.numpy(), [1 / 3, 2 / 3])
    known = [ref for ref in refs if ref.has_mask]
    groups = _by_size(areas, limits.tolist()) | _by_kind(dataset, known)
    return LabelStudy(
        run=str(run),
        weights_sha256=folder.best_sha256(),
        method=config.method,
        split=config.split,
        store=str(store),
        text=config.text,
        precision=precision,
        device=str(device),
        image_size=size,
        expressions=expressions,
        num_refs=len(known),
        num_images=len(set(samples.image_ids.tolist())),
        num_expressions=sum(int((keys[:, 1:] >= 0).sum()) for keys in plan),
        dropped_refs=dataset.problems.num_dropped,
        without_mask=num_without,
        size_limits=(float(limits[0]) * 100 / size**2, float(limits[1]) * 100 / size**2),
        seconds=time.perf_counter() - started,
        rows=tuple(
            StudiedLabels(
                refinement=refinement,
                scores=label_scores(found, counts[0], groups, is_matched=refinement.match is not None),
            )
            for refinement, found in zip(chosen, counts, strict=True)
        ),
    )


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


def count_labels(
    samples: RefSamples,
    plan: Sequence[NDArray[np.int64]],
    teacher: EmaTeacher,
    chosen: Sequence[Refinement],
    precision: Precision,
    device: torch.device,
    on_progress: OnProgress,
) -> tuple[list[LabelCounts], Tensor]:
    """The counts of each refinement, and the areas of the true masks in pixels at the training size, int64 [R], both
    of the refs whose masks are known."""
    parts: list[list[LabelCounts]] = [[] for _ in chosen]
    areas, done = [], 0
    for loaded in Loader(samples, pin_memory=device.type == "cuda").read(plan):
        batch = loaded.to(device)
        with autocast(precision, device):
            _, prob, other_prob = expression_probs(teacher, plain_view(batch.images), batch, BATCH_SIZE)
        for found, (labels, matched) in zip(parts, refined_labels(batch, prob, other_prob, chosen), strict=True):
            found.append(LabelCounts.of(labels, matched, batch))
        areas.append(loaded.masks[loaded.has_mask].sum(dim=(1, 2)))
        done += len(batch)
        on_progress("refs labeled", done, len(samples))
    return [LabelCounts.joined(found) for found in parts], torch.cat(areas)


def _by_size(areas: Tensor, limits: Sequence[float]) -> dict[str, Tensor]:
    """Thirds of the refs by the area of their objects. COCO's limits would call nearly all of RefShapes large."""
    low, high = limits
    return dict(zip(SIZES, (areas <= low, (areas > low) & (areas <= high), areas > high), strict=True))


def _by_kind(dataset: ReferDataset, refs: Sequence[Ref]) -> dict[str, Tensor]:
    """RefShapes' objects of one colour and those of several; {} where the data set does not know."""
    if dataset.spec.name != "refshapes":
        return {}
    composites = {category.name for category in CATEGORIES if category.is_composite}
    is_composite = torch.tensor([dataset.category(ref) in composites for ref in refs])
    return {"simple": ~is_composite, "composite": is_composite}
