"""`semires study labels`: what refinements make of the labels of a run's teacher, side by side; nothing is trained.

The teacher reads each unlabeled train ref once, in batches of whole images; every refinement starts from the same
probabilities. In memory at a time: one batch, its probabilities and one refinement's labels; of all refs five numbers a
refinement; and the resized images, masks and candidates themselves only where `RefSamples` keeps them.

Axes: R refs.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.pipeline.audit.label_counts import LabelCounts, LabelScores, label_scores
from semires.pipeline.audit.refinements import Refinement, most_expressions, refined_labels, refinements
from semires.pipeline.audit.unlabeled import kind_groups, open_unlabeled, size_groups, size_limits, whole_images
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.stages.train.engine.precision import Precision, autocast
from semires.stages.train.evaluation import BATCH_SIZE
from semires.stages.train.labels.group_labels import expression_probs
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import Batch, RefSamples
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.views import plain_view


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
    found = open_unlabeled(run, paths, on_progress, store=store)
    config, samples, size = found.config, found.samples, found.model.image_size
    chosen = refinements(config, expressions)
    plan = whole_images(samples, most_expressions(chosen), BATCH_SIZE)
    precision = config.resolved(device).precision
    started = time.perf_counter()
    counts, areas = count_labels(
        samples, plan, EmaTeacher(found.model.to(device)), chosen, precision, device, on_progress
    )
    low, high = size_limits(areas)
    groups = size_groups(areas) | kind_groups(found.dataset, found.known)
    return LabelStudy(
        run=str(run),
        weights_sha256=RunFolder(run).best_sha256(),
        method=config.method,
        split=config.split,
        store=str(found.store),
        text=config.text,
        precision=precision,
        device=str(device),
        image_size=size,
        expressions=expressions,
        num_refs=len(found.known),
        num_images=len(set(samples.image_ids.tolist())),
        num_expressions=sum(int((keys[:, 1:] >= 0).sum()) for keys in plan),
        dropped_refs=found.dataset.problems.num_dropped,
        without_mask=found.without_mask,
        size_limits=(low * 100 / size**2, high * 100 / size**2),
        seconds=time.perf_counter() - started,
        rows=tuple(
            StudiedLabels(
                refinement=refinement,
                scores=label_scores(counted, counts[0], groups, is_matched=refinement.match is not None),
            )
            for refinement, counted in zip(chosen, counts, strict=True)
        ),
    )


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
    areas = []
    for batch, made in label_batches(samples, plan, teacher, chosen, precision, device, on_progress):
        for found, (labels, matched) in zip(parts, made, strict=True):
            found.append(LabelCounts.of(labels, matched, batch))
        areas.append(batch.masks[batch.has_mask].sum(dim=(1, 2)).cpu())
    return [LabelCounts.joined(found) for found in parts], torch.cat(areas)


def label_batches(
    samples: RefSamples,
    plan: Sequence[NDArray[np.int64]],
    teacher: EmaTeacher,
    chosen: Sequence[Refinement],
    precision: Precision,
    device: torch.device,
    on_progress: OnProgress,
) -> Iterator[tuple[Batch, Iterator[tuple[Tensor, Tensor | None]]]]:
    """Each batch of whole images of the plan, on the device, with what `refined_labels` makes of what the teacher
    says of it."""
    done = 0
    for loaded in Loader(samples, pin_memory=device.type == "cuda").read(plan):
        batch = loaded.to(device)
        yield batch, labels_of(batch, teacher, chosen, precision, device)
        done += len(batch)
        on_progress("refs labeled", done, len(samples))


def labels_of(
    batch: Batch, teacher: EmaTeacher, chosen: Sequence[Refinement], precision: Precision, device: torch.device
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """What `refined_labels` makes of what the teacher says of a batch of whole images, which is on the device."""
    with autocast(precision, device):
        _, prob, other_prob = expression_probs(teacher, plain_view(batch.images), batch, BATCH_SIZE)
    return refined_labels(batch, prob, other_prob, chosen)
