"""Scores of a model on a split: every expression, at the training size, as LAVT and the paper measure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semires.stages.processes.ranks import Ranks
from semires.stages.train.engine.precision import Precision, autocast
from semires.stages.train.metrics import SegmentationMetrics, SegmentationScores, scores_from_counts
from semires.stages.train.models.normalization import normalize
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.reading.sampling import every_expression
from semires.stages.train.views import plain_view

BATCH_SIZE = 16
# On a GPU that has room for more, up to this many images at once, in so much of the free memory.
MAX_BATCH_SIZE = 128
MEMORY_SHARE = 0.5


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    samples: RefSamples,
    device: torch.device,
    *,
    batch_size: int | None = None,
    precision: Precision = "fp32",
    loader: Loader | None = None,
    ranks: Ranks | None = None,
    on_progress: Callable[[int, int], None] | None = None,
    on_counts: Callable[[Tensor, Tensor], None] | None = None,
) -> SegmentationScores:
    """oIoU, mIoU and precisions of `model` over every expression of `samples`; leaves each module's mode as it was.

    The prediction is the argmax of the two channels, the truth the mask resized nearest-neighbour. `on_progress(done,
    total)` counts expressions. batch_size: None for 16, on CUDA what half of the free memory holds. ranks: each takes a
    part of the expressions, and all return the same exact scores of the whole; `on_progress` is of rank 0's part.
    loader: one of `samples` that stays for the next evaluation; None for one that ends with this. on_counts: told the
    intersection and the union in pixels of every expression, int64 [E] each, in the order of `every_expression`.
    """
    ranks = ranks or Ranks()
    loader = loader or Loader(samples, pin_memory=device.type == "cuda")
    keys = every_expression(samples.num_expressions)
    rows = ranks.rows(len(keys))
    keys = keys[rows]
    metrics = SegmentationMetrics()
    with _evaluation_mode(model):

        def measure(keys: NDArray[np.int64], at_once: int, done: int) -> None:
            batches = [keys[start : start + at_once] for start in range(0, len(keys), at_once)]
            for batch in loader.read(batches):
                moved = batch.to(device)
                with autocast(precision, device):
                    logits = model(normalize(plain_view(moved.images)), moved.input_ids, moved.attention_mask)
                metrics.update(logits[:, 1] > logits[:, 0], moved.masks)
                done += len(batch)
                if on_progress is not None:
                    on_progress(done, rows.stop - rows.start)

        first = 0
        if batch_size is None and device.type == "cuda":
            first = min(BATCH_SIZE, len(keys))
            batch_size = _fitting_batch_size(lambda: measure(keys[:first], BATCH_SIZE, 0), device)
        measure(keys[first:], batch_size or BATCH_SIZE, first)
    parts = ranks.gather(metrics.counts())
    intersections, unions = (torch.cat(counts) for counts in zip(*parts, strict=True))
    if on_counts is not None:
        on_counts(intersections, unions)
    return scores_from_counts(intersections, unions)


def _fitting_batch_size(measure_first: Callable[[], None], device: torch.device) -> int:
    """Images at once that a GPU has room for, by what the first `BATCH_SIZE` of them took."""
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    measure_first()
    taken = max(torch.cuda.max_memory_allocated(device) - before, 1)
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # held, but not in use
    return max(BATCH_SIZE, min(MAX_BATCH_SIZE, int(BATCH_SIZE * MEMORY_SHARE * free / taken)))


@contextmanager
def _evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Module by module: in burn-in BERT is in evaluation mode while the rest trains, and train() would end that."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, was_training in modes:
            module.training = was_training
