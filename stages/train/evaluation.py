"""Scores of a model on a split: every expression, at the training size, as LAVT and the paper measure."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from semires.stages.train.metrics import SegmentationMetrics, SegmentationScores
from semires.stages.train.models.normalization import normalize
from semires.stages.train.samples import RefSamples, every_expression, load_batches
from semires.stages.train.views import plain_view

BATCH_SIZE = 16


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    samples: RefSamples,
    device: torch.device,
    *,
    batch_size: int = BATCH_SIZE,
    num_workers: int = 0,
    on_progress: Callable[[int, int], None] | None = None,
) -> SegmentationScores:
    """oIoU, mIoU and precisions of `model` over every expression of `samples`; leaves each module's mode as it was.

    The prediction is the argmax of the two channels, the truth the mask resized nearest-neighbour. `on_progress(done,
    total)` counts expressions.
    """
    keys = every_expression(samples.refs)
    batches = [keys[start : start + batch_size] for start in range(0, len(keys), batch_size)]
    metrics = SegmentationMetrics()
    done = 0
    with _evaluation_mode(model):
        for batch in load_batches(samples, batches, num_workers):
            moved = batch.to(device)
            logits = model(normalize(plain_view(moved.images)), moved.input_ids, moved.attention_mask)
            metrics.update(logits[:, 1] > logits[:, 0], moved.masks)
            done += len(batch)
            if on_progress is not None:
                on_progress(done, len(keys))
    return metrics.compute()


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
