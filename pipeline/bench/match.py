"""`semires bench match`: the matching kernels beside the public code's loop and a dense matrix product.

Contestants, each on the same masks in the same run:

- loop: the public code's steps, sample by sample and candidate by candidate on dense masks, reading every count back;
- matmul: all candidates of a sample at once, intersections as a float matrix product of dense masks;
- packed: `semires.stages.train.matching.match` on this CPU;
- cuda: the same call on CUDA tensors, where there is a device.

All must refine alike before they are timed.

Every image has the same candidates, but each its own copy of the packed ones, so that no cache serves a whole batch.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from semires.pipeline.bench.contestants.plain_match import match_by_loop, match_by_matmul
from semires.pipeline.bench.inputs.ellipses import ellipses
from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine
from semires.stages.train.losses import supervised_loss
from semires.stages.train.matching import MatchConfig, Strategy, match, unpack_bits
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_NANO, LavtConfig


@dataclass(frozen=True, kw_only=True)
class MatchBenchConfig:
    """What to measure."""

    batches: tuple[int, ...] = (1, 8, 32)
    """Numbers of pseudo-labels, B."""
    candidates: tuple[int, ...] = (50, 100, 300)
    """Numbers of candidates of each, N."""
    sizes: tuple[int, ...] = (96, 480, 1024)
    """Sides S in pixels."""
    step_shape: tuple[int, int, int] | None = (3, 100, 480)
    """B, N and S of one case more, that of a LAVT-base training step."""
    strategies: tuple[Strategy, ...] = ("iom", "cpi-u")
    """Matching strategies."""
    repeats: int = 5
    """Rounds; in each every contestant matches once."""
    threads: int = 1
    """Threads of the CPU contestants."""
    dense_pixels: int = 250_000_000
    """Contestants on dense masks sit out where B * N * S * S is above this: seconds a round, gigabytes of floats."""
    with_training_step: bool = True
    """Whether to time a training step, LAVT-nano's on CPU and LAVT-base's on CUDA, and say matching's share of it."""

    def shapes(self) -> list[tuple[int, int, int]]:
        """B, N and S of every case: all combinations, then the training step's."""
        combinations = itertools.product(self.sizes, self.candidates, self.batches)
        shapes = [(batch, num_candidates, size) for size, num_candidates, batch in combinations]
        return shapes if self.step_shape is None or self.step_shape in shapes else [*shapes, self.step_shape]


QUICK = MatchBenchConfig(batches=(1, 8), candidates=(100,), sizes=(96, 480))
"""What `--quick` measures."""


def bench_match(config: MatchBenchConfig) -> Bench:
    """Measure every contestant in every combination of batch, candidates, size and strategy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = []
        for (num_candidates, size), shapes in itertools.groupby(config.shapes(), key=lambda shape: shape[1:]):
            masks = ellipses(num_candidates, size)
            for (batch, _, _), strategy in itertools.product(shapes, config.strategies):
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
            # RefShapes' batch and candidates; the paper's batch.
            notes.append(_training_step("LAVT-nano", LAVT_NANO, "cpu", batch=8, num_candidates=8, config=config))
            if torch.cuda.is_available():
                notes.append(_training_step("LAVT-base", LAVT_BASE, "cuda", batch=3, num_candidates=100, config=config))
        return Bench(title="Matching, milliseconds", machine=machine(), rows=rows, notes=notes)
    finally:
        torch.set_num_threads(threads)


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
    expected = match(packed, offsets, labels, strategy)
    packed, labels = packed.cuda(), labels.cuda()
    copied = torch.empty_like(packed)
    found = match(packed, offsets, labels, strategy)
    if not (
        torch.equal(found.refined.cpu(), expected.refined)
        and torch.equal(found.matched.cpu(), expected.matched)
        and torch.equal(found.chosen.cpu(), expected.chosen)
    ):
        raise RuntimeError(f"cuda and packed refine differently: {list(labels.shape)}, {strategy}")

    def finished(work: Callable[[], object]) -> Callable[[], None]:
        return lambda: _finish(work, "cuda")

    return interleaved_medians(
        {
            "copy": finished(lambda: copied.copy_(packed)),
            "cuda": finished(lambda: match(packed, offsets, labels, strategy)),
        },
        repeats=max(repeats, 20),
        warmup=3,
    )


def _finish(work: Callable[[], object], device: str) -> None:
    """Do the work and wait until the device has done it."""
    work()
    if device == "cuda":
        torch.cuda.synchronize()


def _training_step(
    name: str, lavt: LavtConfig, device: str, *, batch: int, num_candidates: int, config: MatchBenchConfig
) -> str:
    """What share matching takes of a training step in float32, in words; as many labeled images as unlabeled ones."""
    model = Lavt(lavt).to(device)
    size = lavt.image_size
    images = torch.rand(2 * batch, 3, size, size, device=device)
    ids = torch.ones(2 * batch, lavt.max_tokens, dtype=torch.int64, device=device)
    targets = torch.rand(2 * batch, size, size, device=device) < 0.1
    packed = ellipses(num_candidates, size).repeat(batch, 1).to(device)
    labels = unpack_bits(packed[:1], size).repeat(batch, 1, 1)
    offsets = torch.arange(batch + 1) * num_candidates

    def step() -> None:
        with torch.no_grad():
            model(images[:batch], ids[:batch], ids[:batch])
        supervised_loss(model(images, ids, ids), targets).backward()
        model.zero_grad()

    ms = interleaved_medians(
        {
            "step": lambda: _finish(step, device),
            "match": lambda: _finish(lambda: match(packed, offsets, labels, MatchConfig()), device),
        },
        repeats=config.repeats,
    )
    return (
        f"{name} on {device}, {batch} labeled and {batch} unlabeled images at {size}x{size}: forward passes of teacher "
        f"and student and the backward pass {ms['step']:.0f} ms, matching {batch} x {num_candidates} candidates "
        f"{ms['match']:.3f} ms, {ms['match'] / ms['step']:.2%}"
    )
