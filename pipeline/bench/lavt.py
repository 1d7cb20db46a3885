"""`semires bench lavt`: our LAVT beside the same network written plainly, in one run, contestants in turns.

Forward passes are those of evaluation, without gradients; forward + backward is that of training, with dropout and drop
path, up to the gradients of what LAVT trains. Equal weights; the logits are compared before anything is timed.
"""

from __future__ import annotations

import copy
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from semires.pipeline.bench.contestants.plain_lavt import PlainLavt
from semires.pipeline.bench.measures.memory import forget_peak, peak_memory
from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_SIZES

PLAIN, OURS, CHECKPOINTED = "written plainly", "semires", "semires, gradient checkpointing"
PASSES = ("forward", "forward + backward")
MEASURED = {PLAIN: PASSES, OURS: PASSES, CHECKPOINTED: PASSES[1:]}
"""The passes of each contestant; without gradients there is nothing to checkpoint."""

# Side of the square matrices whose product is the machine's peak; the weights of LAVT-base are 512 to 4096 wide.
PEAK_SIDE = 2048
# Largest difference of logits, of the order of 1, in float32.
TOLERANCE = 1e-3


@dataclass(frozen=True)
class Case:
    """A model and what it is given."""

    model: str
    """One of `LAVT_SIZES`."""
    size: int
    """Side of the images in pixels."""
    batch: int
    """Images at once."""


@dataclass(frozen=True, kw_only=True)
class LavtBenchConfig:
    """What to measure."""

    cases: tuple[Case, ...] = (Case("nano", 96, 16), Case("base", 224, 1))
    """Models and inputs. LAVT-base at 480 is 0.4 TFLOP a forward pass: seconds on a CPU."""
    repeats: int = 3
    """Rounds; in each every contestant takes its turn."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where all contestants run."""
    threads: int = 1
    """Threads on the CPU. More than there are idle cores make hundreds of small steps wait for each other."""


QUICK = (Case("nano", 96, 16),)
"""The cases of `--quick`."""


def bench_lavt(config: LavtBenchConfig) -> Bench:
    """Measure all contestants in every case on `config.device`, in float32."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        rows = [row for case in config.cases for row in _measure(case, config)]
        found_on = machine()
    finally:
        torch.set_num_threads(threads)
    notes = [
        f"median of {config.repeats} rounds in turns, on {config.device}, float32; equal weights, logits equal within "
        f"{TOLERANCE:g}; as trained: BERT's last layers frozen",
        f"of peak: operations (2 a multiply-add) over time, as a share of those of a {PEAK_SIDE}x{PEAK_SIDE} matrix "
        "product in the same rounds; each contestant's own, so one that needs fewer can be faster at a lower share",
        "MB: peak over that of the loaded model, on CPU in a process of its own",
    ]
    return Bench(title="LAVT", machine=found_on, rows=rows, notes=notes)


def make_contestant(name: str, lavt: Lavt) -> nn.Module:
    """The contestant with a copy of `lavt`'s weights."""
    if name == PLAIN:
        return PlainLavt(lavt)
    copied = copy.deepcopy(lavt)
    copied.gradient_checkpointing = name == CHECKPOINTED
    return copied


def _make_lavt(case: Case, device: torch.device) -> tuple[Lavt, tuple[Tensor, Tensor, Tensor]]:
    """A LAVT of random weights with its parameters frozen or not as in training, and a batch for it."""
    torch.manual_seed(0)
    lavt = Lavt(LAVT_SIZES[case.model])
    lavt.parameter_groups(weight_decay=0.01, learning_rate=5e-5)
    tokens = lavt.config.max_tokens
    mask = (torch.arange(tokens) < tokens // 2).long().expand(case.batch, -1)
    input_ids = torch.randint(5, lavt.config.vocab_size, mask.shape) * mask
    images = torch.randn(case.batch, 3, case.size, case.size)
    return lavt.to(device), (images.to(device), input_ids.to(device), mask.to(device))


def _forward(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    with torch.no_grad():
        logits: Tensor = model.eval()(*batch)
    return logits


def _forward_backward(model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> None:
    model.train()(*batch).square().mean().backward()
    model.zero_grad(set_to_none=True)


_RUN: dict[str, Callable[[nn.Module, tuple[Tensor, Tensor, Tensor]], object]] = {
    "forward": _forward,
    "forward + backward": _forward_backward,
}


def _measure(case: Case, config: LavtBenchConfig) -> list[dict[str, Cell]]:
    """A row for each contestant."""
    lavt, batch = _make_lavt(case, config.device)
    models = {name: make_contestant(name, lavt) for name in MEASURED}
    del lavt
    difference = float((_forward(models[OURS], batch) - _forward(models[PLAIN], batch)).abs().max())
    if not difference <= TOLERANCE:
        raise RuntimeError(f"{case}: expected equal logits of both networks, they differ by {difference:.2g}")
    ms = _milliseconds(models, batch, config)
    peak = 2 * PEAK_SIDE**3 / ms["peak"]
    rows = []
    for name, model in models.items():
        memory = _memory(name, case, model, batch)
        row: dict[str, Cell] = {"LAVT": f"{case.model}, {case.size}, batch {case.batch}", "contestant": name}
        for which in PASSES:
            figures: dict[str, Cell] = dict.fromkeys(("ms", "ratio", "GFLOP", "of peak", "MB"))
            if which in MEASURED[name]:
                time, operations = ms[f"{name}: {which}"], _operations(which, model, batch)
                figures = {
                    "ms": time,
                    "ratio": ms[f"{PLAIN}: {which}"] / time,
                    "GFLOP": operations / 1e9,
                    "of peak": f"{operations / time / peak:.0%}",
                    "MB": memory[which],
                }
            row |= {f"{which}, {figure}": value for figure, value in figures.items()}
        rows.append(row)
    return rows


def _milliseconds(
    models: dict[str, nn.Module], batch: tuple[Tensor, Tensor, Tensor], config: LavtBenchConfig
) -> dict[str, float]:
    """Medians of `contestant: pass` and, as `peak`, of one matrix product."""

    def finished(work: Callable[[], object]) -> Callable[[], None]:
        def run() -> None:
            work()
            if config.device.type == "cuda":
                torch.cuda.synchronize(config.device)

        return run

    square = torch.randn(PEAK_SIDE, PEAK_SIDE, device=config.device)
    functions = {
        f"{name}: {which}": finished(partial(_RUN[which], model, batch))
        for name, model in models.items()
        for which in MEASURED[name]
    }
    return interleaved_medians(
        functions | {"peak": finished(partial(torch.matmul, square, square))}, repeats=config.repeats
    )


def _operations(which: str, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> int:
    """2 for each multiply-add of a pass."""
    with FlopCounterMode(display=False) as counter:
        if which == "forward":
            # With gradients: without them the counter misses a kernel of the attention on the CPU.
            model.eval()(*batch)
        else:
            _RUN[which](model, batch)
    return counter.get_total_flops()


def _memory(name: str, case: Case, model: nn.Module, batch: tuple[Tensor, Tensor, Tensor]) -> dict[str, float]:
    """Peak megabytes of each pass over those of the loaded model."""
    device = batch[0].device
    if device.type != "cuda":
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(resident_memory, name, case, torch.get_num_threads()).result()
    found = {}
    for which in MEASURED[name]:
        torch.cuda.reset_peak_memory_stats(device)
        start = torch.cuda.memory_allocated(device)
        _RUN[which](model, batch)
        found[which] = (torch.cuda.max_memory_allocated(device) - start) / 1e6
    return found


def resident_memory(name: str, case: Case, threads: int) -> dict[str, float]:
    """Peak resident megabytes of each pass on the CPU over those of this process with the model loaded."""
    torch.set_num_threads(threads)
    lavt, batch = _make_lavt(case, torch.device("cpu"))
    model = make_contestant(name, lavt)
    del lavt
    start, found = forget_peak(), {}
    for which in MEASURED[name]:
        forget_peak()
        _RUN[which](model, batch)
        found[which] = peak_memory() - start
    return found
