"""`semires bench match`: the matching kernels beside the public code's loop and a dense matrix product.

Contestants, each on the same masks in the same run:

- loop: the public code's steps, sample by sample and candidate by candidate on dense masks, reading every count back;
- matmul: all candidates of a sample at once, intersections as a float matrix product of dense masks;
- packed: `semires.stages.train.matching.match` on this CPU;
- cuda: the same call on CUDA tensors, where there is a device.

Every image has the same candidates, but each its own copy of the packed ones, so that no cache serves a whole batch.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.pipeline.bench.report import Bench, Cell, interleaved_medians, machine
from semires.stages.train.config import TrainConfig
from semires.stages.train.losses import supervised_loss
from semires.stages.train.matching import MatchConfig, Strategy, match, unpack_bits
from semires.stages.train.models import build_model


@dataclass(frozen=True, kw_only=True)
class MatchBenchConfig:
    """What to measure."""

    batches: tuple[int, ...] = (1, 8, 32)
    """Numbers of pseudo-labels, B."""
    candidates: tuple[int, ...] = (50, 100, 300)
    """Numbers of candidates of each, N."""
    sizes: tuple[int, ...] = (96, 480, 1024)
    """Sides S in pixels."""
    strategies: tuple[Strategy, ...] = ("iom", "cpi-u")
    """Matching strategies."""
    repeats: int = 5
    """Rounds; in each every contestant matches once."""
    threads: int = 1
    """Threads of the CPU contestants."""
    dense_pixels: int = 250_000_000
    """Contestants on dense masks sit out where B * N * S * S is above this: seconds a round, gigabytes of floats."""
    with_training_step: bool = True
    """Whether to time a training step of LAVT-nano and say what share of it matching takes."""


QUICK = MatchBenchConfig(batches=(1, 8), candidates=(100,), sizes=(96, 480))
"""What `--quick` measures."""


def bench_match(config: MatchBenchConfig) -> Bench:
    """Measure every contestant in every combination of batch, candidates, size and strategy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = []
        for size, num_candidates in itertools.product(config.sizes, config.candidates):
            masks = ellipses(num_candidates, size)
            for batch, strategy in itertools.product(config.batches, config.strategies):
                rows.append(_measure(masks, size, batch, MatchConfig(strategy=strategy), config))
        notes = [
            f"median of {config.repeats} rounds in turns, {config.threads} thread(s); candidates are random ellipses, "
            "the label is one over the image's whole height",
            "of copy: bandwidth of reading the packed candidates once, over that of copying them (read and written) in "
            "the same rounds",
            f"-: dense masks of more than {config.dense_pixels:,} pixels are left out",
        ]
        if not torch.cuda.is_available():
            notes.append("no CUDA device here: that contestant was not run")
        if config.with_training_step:
            notes.append(_training_step(config))
        return Bench(title="Matching, milliseconds", machine=machine(), rows=rows, notes=notes)
    finally:
        torch.set_num_threads(threads)


def ellipses(num_masks: int, size: int) -> Tensor:
    """Random ellipses, packed, uint8 [num_masks, ceil(size * size / 8)]; the first covers the image's whole height."""
    random = np.random.default_rng(0)
    rows, columns = np.ogrid[0:size, 0:size]
    packed: list[NDArray[np.uint8]] = []
    for index in range(num_masks):
        y, x = random.uniform(0, size, 2)
        radius_y, radius_x = random.uniform(0.02 * size, 0.4 * size, 2)
        if index == 0:
            y, x, radius_y, radius_x = 0.5 * size, 0.5 * size, 0.5 * size, 0.2 * size
        packed.append(np.packbits(((rows - y) / radius_y) ** 2 + ((columns - x) / radius_x) ** 2 <= 1))
    return torch.from_numpy(np.stack(packed))


def match_by_loop(candidates: Tensor, label: Tensor, config: MatchConfig) -> Tensor:
    """Refine one label, bool [S, S], by dense candidates, bool [N, S, S], in the public code's steps (iom, cpi-u).

    Each candidate is compared on its own and its counts are read back before the next.
    """
    label_area = label.sum().item()
    best, best_iou, union = None, config.iou_rate, None
    for candidate in candidates:
        inter = torch.logical_and(candidate, label).sum().item()
        if config.strategy == "iom":
            iou = inter / max(torch.logical_or(candidate, label).sum().item(), 1)
            if iou > best_iou:
                best, best_iou = candidate, iou
        elif inter / max(label_area, 1) > config.inter1:
            union = candidate if union is None else torch.logical_or(union, candidate)
    found = best if config.strategy == "iom" else union
    return label if found is None else found


def match_by_matmul(candidates: Tensor, label: Tensor, config: MatchConfig) -> Tensor:
    """Refine one label, bool [S, S], by dense candidates, bool [N, S, S], through one float matrix product.

    Counts are float32 sums, exact to 2^24 pixels.
    """
    flat = candidates.flatten(1).float()
    inters = flat @ label.flatten().float()
    if config.strategy == "iom":
        ious = inters / (flat.sum(dim=1) + label.sum() - inters).clamp(min=1)
        return candidates[ious.argmax()] if ious.max() > config.iou_rate else label
    qualified = inters / label.sum().clamp(min=1) > config.inter1
    return candidates[qualified].any(dim=0) if qualified.any() else label


def _measure(masks: Tensor, size: int, batch: int, strategy: MatchConfig, config: MatchBenchConfig) -> dict[str, Cell]:
    """One row of the table."""
    label = unpack_bits(masks[:1], size)[0].roll(size // 16, dims=1)
    packed, labels = masks.repeat(batch, 1), label.repeat(batch, 1, 1)
    offsets = torch.arange(batch + 1) * len(masks)
    copied = torch.empty_like(packed)
    contestants: dict[str, Callable[[], object]] = {
        "copy": lambda: copied.copy_(packed),
        "packed": lambda: match(packed, offsets, labels, strategy),
    }
    if batch * len(masks) * size * size <= config.dense_pixels:
        dense = unpack_bits(masks, size)
        refined = match(masks, offsets[:2], labels[:1], strategy).refined[0]
        for name, contestant in (("loop", match_by_loop), ("matmul", match_by_matmul)):
            if not torch.equal(contestant(dense, label, strategy), refined):
                raise RuntimeError(f"{name} and packed refine differently at size {size}, {strategy}")
        contestants["loop"] = lambda: [match_by_loop(dense, one, strategy) for one in labels]
        contestants["matmul"] = lambda: [match_by_matmul(dense, one, strategy) for one in labels]
    ms = interleaved_medians(contestants, repeats=config.repeats)
    cuda_ms = _cuda_medians(packed, offsets, labels, strategy, config.repeats) if torch.cuda.is_available() else {}

    def ratio(name: str) -> float | None:
        return ms["loop"] / (ms | cuda_ms)[name] if "loop" in ms and name in ms | cuda_ms else None

    row: dict[str, Cell] = {
        "S": size,
        "N": len(masks),
        "B": batch,
        "strategy": strategy.strategy,
        "loop": ms.get("loop"),
        "matmul": ms.get("matmul"),
        "packed": ms["packed"],
        "loop / packed": ratio("packed"),
        "packed, of copy": f"{_share_of_copy(ms['packed'], ms['copy']):.0%}",
    }
    if cuda_ms:
        share = f"{_share_of_copy(cuda_ms['cuda'], cuda_ms['copy']):.0%}"
        row |= {"cuda": cuda_ms["cuda"], "loop / cuda": ratio("cuda"), "cuda, of copy": share}
    return row


def _share_of_copy(match_ms: float, copy_ms: float) -> float:
    """Bandwidth of reading the candidates once within `match_ms` over that of the copy, which reads and writes them."""
    return copy_ms / (2 * match_ms)


def _cuda_medians(
    packed: Tensor, offsets: Tensor, labels: Tensor, strategy: MatchConfig, repeats: int
) -> dict[str, float]:
    """Median milliseconds of match and of a copy on the CUDA device, waiting for the device included."""
    packed, labels = packed.cuda(), labels.cuda()
    copied = torch.empty_like(packed)

    def finished(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            torch.cuda.synchronize()

        return run

    return interleaved_medians(
        {
            "copy": finished(lambda: copied.copy_(packed)),
            "cuda": finished(lambda: match(packed, offsets, labels, strategy)),
        },
        repeats=max(repeats, 20),
        warmup=3,
    )


def _training_step(config: MatchBenchConfig) -> str:
    """What share of a LAVT-nano step matching takes, in words: RefShapes' 8 candidates an image, 8 labels."""
    model, _ = build_model(TrainConfig(model="nano", split="refshapes"), pretrained=False)
    size, batch, num_candidates = model.config.image_size, 8, 8
    images = torch.rand(2 * batch, 3, size, size)
    ids = torch.ones(2 * batch, 20, dtype=torch.int64)
    targets = torch.rand(2 * batch, size, size) < 0.1
    packed = ellipses(num_candidates, size).repeat(batch, 1)
    labels = unpack_bits(packed[:1], size).repeat(batch, 1, 1)
    offsets = torch.arange(batch + 1) * num_candidates

    def step() -> None:
        with torch.no_grad():
            model(images[:batch], ids[:batch], ids[:batch])
        supervised_loss(model(images, ids, ids), targets).backward()
        model.zero_grad()

    ms = interleaved_medians(
        {"step": step, "match": lambda: match(packed, offsets, labels, MatchConfig())}, repeats=config.repeats
    )
    return (
        f"LAVT-nano, {batch} labeled and {batch} unlabeled images at {size}x{size}: forward passes of teacher and "
        f"student and the backward pass {ms['step']:.0f} ms, matching {batch} x {num_candidates} candidates "
        f"{ms['match']:.3f} ms, {ms['match'] / ms['step']:.2%}"
    )
