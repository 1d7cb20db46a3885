"""Scores of a model on a split: every expression, at the training size, as LAVT and the paper measure.

Images are read one after another, each once, in processes beside this one where that pays (loading.py); what stays in
memory of an expression is its pixel counts.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from semires.stages.processes.ranks import Ranks
from semires.stages.train.engine.precision import Precision, autocast
from semires.stages.train.metrics import ExpressionCounts, SegmentationMetrics, SegmentationScores
from semires.stages.train.models.normalization import normalize
from semires.stages.train.prediction import scaled_masks
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.reading.sampling import every_expression
from semires.stages.train.views import plain_view

BATCH_SIZE = 16
# On a GPU that has room for more, up to this many images at once, in so much of the free memory.
MAX_BATCH_SIZE = 128
MEMORY_SHARE = 0.5


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """What an evaluation found, in the order of `every_expression`: the counts at the training size, and at the images'
    own where that was asked for; and the share of its time that this process waited for data."""

    counts: ExpressionCounts
    native: ExpressionCounts | None
    data_wait: float


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
) -> SegmentationScores:
    """oIoU, mIoU and precisions of `model` over every expression of `samples`; arguments as `measure` has them, but
    that `on_progress` is told no note."""
    found = measure(
        model,
        samples,
        device,
        batch_size=batch_size,
        precision=precision,
        loader=loader,
        ranks=ranks,
        on_progress=None if on_progress is None else lambda done, total, note: on_progress(done, total),
    )
    return found.counts.scores()


@torch.inference_mode()
def measure(
    model: nn.Module,
    samples: RefSamples,
    device: torch.device,
    *,
    batch_size: int | None = None,
    precision: Precision = "fp32",
    loader: Loader | None = None,
    ranks: Ranks | None = None,
    native: bool = False,
    on_progress: Callable[[int, int, str], None] | None = None,
) -> Measurement:
    """Count the pixels of prediction and truth for every expression of `samples`; leaves each module's mode as it was.

    The prediction is the argmax of the two channels, the truth the mask resized nearest-neighbour. native: also at each
    image's own size, the logits scaled bilinearly by `scaled_logits` and the truth as it is. batch_size: None for 16,
    on CUDA what half of the free memory holds. ranks: each takes a part of the expressions, and all return the same
    exact counts of the whole; the wait for data is each one's own, and `on_progress(done, total, note)`, which
    counts expressions, is of rank 0's part. loader: one of `samples` that stays for the next evaluation; None for one
    that ends with this.
    """
    ranks = ranks or Ranks()
    loader = loader or Loader(samples, pin_memory=device.type == "cuda")
    every = every_expression(samples.num_expressions)
    # The expressions of an image in a row: it is read once, whatever is kept in memory.
    order = np.argsort(samples.image_ids.numpy()[every[:, 0]], kind="stable")
    rows = ranks.rows(len(every))
    keys_of_rank = every[order[rows]]
    counts = SegmentationMetrics(len(keys_of_rank))
    native_counts = SegmentationMetrics(len(keys_of_rank) if native else 0)
    started, waited, done = time.perf_counter(), 0.0, 0

    def count(keys: NDArray[np.int64], at_once: int) -> None:
        nonlocal waited, done
        batches = [keys[start : start + at_once] for start in range(0, len(keys), at_once)]
        loaded = loader.read(batches)
        for of_batch in batches:
            asked = time.perf_counter()
            batch = next(loaded)
            waited += time.perf_counter() - asked
            moved = batch.to(device)
            with autocast(precision, device):
                logits = model(normalize(plain_view(moved.images)), moved.input_ids, moved.attention_mask)
            counts.update(logits[:, 1] > logits[:, 0], moved.masks)
            if native:
                _count_native(native_counts, samples, of_batch, logits)
            done += len(batch)
            if on_progress is not None:
                share = waited / (time.perf_counter() - started)
                on_progress(done, len(keys_of_rank), f"data wait {100 * share:.1f}%")

    with _evaluation_mode(model):
        first = 0
        if batch_size is None and device.type == "cuda":
            first = min(BATCH_SIZE, len(keys_of_rank))
            batch_size = _fitting_batch_size(lambda: count(keys_of_rank[:first], BATCH_SIZE), device)
        count(keys_of_rank[first:], batch_size or BATCH_SIZE)
    data_wait = waited / max(time.perf_counter() - started, 1e-9)
    parts = ranks.gather((counts.counts(), native_counts.counts()))
    back = torch.from_numpy(np.argsort(order))
    whole, whole_native = (ExpressionCounts.joined(of_ranks) for of_ranks in zip(*parts, strict=True))
    return Measurement(counts=whole.rows(back), native=whole_native.rows(back) if native else None, data_wait=data_wait)


def _count_native(metrics: SegmentationMetrics, samples: RefSamples, keys: NDArray[np.int64], logits: Tensor) -> None:
    """Add a batch's expressions at their images' own sizes."""
    index, truth = -1, torch.empty(0)
    for number, (of_ref, _) in enumerate(keys.tolist()):
        if of_ref != index:  # a ref's expressions come in a row
            index, truth = of_ref, torch.from_numpy(samples.full_mask(of_ref)).to(logits.device)
        height, width = truth.shape
        metrics.update(scaled_masks(logits[number : number + 1], height, width), truth[None])


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
