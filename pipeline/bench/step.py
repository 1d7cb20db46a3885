"""`semires bench step`: a step of mutual learning beside the same step written plainly, in turns, in one run.

A turn is a few steps with all that training waits for, the reading of the samples included. Where a step's time goes is
measured apart: on CUDA each phase then waits for the device.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from semires.pipeline.bench.contestants.plain_step import CLEAN_UP
from semires.pipeline.bench.contestants.steps import PLAIN, Contestant, Ours, Plain, Sources, finish, true_float32
from semires.pipeline.bench.inputs.step_data import StepData, write_step_data
from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine
from semires.pipeline.recipes import train_recipe
from semires.stages.train.config import TrainConfig
from semires.stages.train.engine.precision import resolve_precision
from semires.stages.train.models.lavt.config import LAVT_SIZES

# Side of the square matrices whose product is the device's peak.
PEAK_SIDES = {"cpu": 2048, "cuda": 8192}


@dataclass(frozen=True, kw_only=True)
class StepBenchConfig:
    """What to measure."""

    model: str = "nano"
    """One of `LAVT_SIZES`; nano trains on RefShapes scenes with its recipe, others on random photographs."""
    size: int | None = None
    """Side of the images in pixels; None: the model's own."""
    batch_labeled: int | None = None
    """Labeled samples of a step; None: the recipe's 4 for nano, for others 3, the paper's on each GPU."""
    batch_unlabeled: int | None = None
    """Unlabeled samples of a step; None: 12 for nano, for others 3."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where all contestants run."""
    threads: int = 1
    """Threads on the CPU."""
    steps: int = 4
    """Steps of a turn."""
    repeats: int = 5
    """Rounds; in each every contestant takes its turn."""
    compile: bool = False
    """Measure ours compiled as well."""

    def train_config(self) -> TrainConfig:
        """The settings that all contestants train with, in float32."""
        if self.model == "nano":
            config = train_recipe("refshapes")
        else:
            config = TrainConfig(model=self.model, batch_labeled=3, batch_unlabeled=3)
        return dataclasses.replace(
            config,
            precision="fp32",
            image_size=self.size,
            batch_labeled=self.batch_labeled or config.batch_labeled,
            batch_unlabeled=self.batch_unlabeled or config.batch_unlabeled,
        )


def bench_step(config: StepBenchConfig) -> Bench:
    """Measure all contestants on `config.device`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        with tempfile.TemporaryDirectory(prefix="semires-bench-", ignore_cleanup_errors=True) as folder:
            rows, notes = _measure(config, Path(folder))
        found_on = machine()
    finally:
        torch.set_num_threads(threads)
    train_config = config.train_config()
    title = (
        f"Training step: LAVT-{config.model}, {train_config.batch_labeled} labeled + {train_config.batch_unlabeled} "
        f"unlabeled samples at {train_config.model_image_size}x{train_config.model_image_size}, {train_config.method}"
    )
    return Bench(title=title, machine=found_on, rows=rows, notes=notes)


def _measure(config: StepBenchConfig, folder: Path) -> tuple[list[dict[str, Cell]], list[str]]:
    """The table's rows and its notes."""
    device, train_config = config.device, config.train_config()
    data = write_step_data(folder, train_config.model_image_size, is_small=config.model == "nano")
    sources = Sources(train_config, data, device)
    makers: dict[str, Callable[[], Contestant]] = {PLAIN: partial(Plain, train_config, data, device)}
    for name, of_ours in _settings_of_ours(config, train_config).items():
        makers[name] = partial(Ours, name, of_ours, sources, device, folder)
    contestants: list[Contestant] = []
    notes: list[str] = []
    megabytes: dict[str, float] = {}
    try:
        for name, make in makers.items():
            before = _allocated(device)
            contestants.append(make())
            start = perf_counter()
            contestants[-1].train(1)
            if name.endswith("compiled"):
                notes.append(f"{name}: its first step took {perf_counter() - start:.1f} s, which count nowhere")
            if device.type == "cuda":
                megabytes[name] = (torch.cuda.max_memory_allocated(device) - before) / 1e6
        ms = interleaved_medians(
            {each.name: partial(each.train, config.steps) for each in contestants}
            | {f"{each.name}: EMA": _finished(each.update_teacher, device) for each in contestants}
            | {f"peak: {each.precision}": _matrix_product(each.precision, device) for each in contestants},
            repeats=config.repeats,
        )
        phases = _phases(contestants, config)
    finally:
        sources.close()
    operations = {each.name: _operations(each, train_config, device) for each in contestants if not each.is_compiled}
    operations_of_ours = next(reversed(operations.values()))  # a compiled one has those of the same not compiled
    num_samples = train_config.batch_labeled + train_config.batch_unlabeled
    plain_ms = ms[PLAIN] / config.steps
    without_clean_up = plain_ms - (phases[PLAIN][CLEAN_UP] or 0.0)
    columns: dict[str, dict[str, Cell]] = {}
    for each in contestants:
        name, step_ms = each.name, ms[each.name] / config.steps
        count = operations.get(name, operations_of_ours)
        floor_ms = count / (2 * _peak_side(device) ** 3) * ms[f"peak: {each.precision}"]
        columns[name] = {
            "samples/s": num_samples * 1e3 / step_ms,
            f"ratio to {PLAIN}": plain_ms / step_ms,
            f"ratio to it without {CLEAN_UP}": None if name == PLAIN else without_clean_up / step_ms,
            "step, ms": step_ms,
            **{f"{phase}, ms": value for phase, value in phases[name].items()},
            "EMA alone, ms": ms[f"{name}: EMA"],
            "GFLOP": count / 1e9,
            "at peak, ms": floor_ms,
            "of peak": f"{floor_ms / step_ms:.0%}",
        }
        if megabytes:
            columns[name]["memory peak, MB"] = megabytes[name]
    rows: list[dict[str, Cell]] = [
        {"figure": figure, **{name: column[figure] for name, column in columns.items()}} for figure in columns[PLAIN]
    ]
    return rows, [*_notes(config, train_config, data, sources.num_workers), *notes]


def _settings_of_ours(config: StepBenchConfig, train_config: TrainConfig) -> dict[str, TrainConfig]:
    """Ours in float32, in the device's own precision if that is another, and where asked compiled in the latter."""
    settings = {"semires, fp32": train_config}
    fast = resolve_precision("auto", config.device)
    if fast != "fp32":
        settings[f"semires, {fast}"] = dataclasses.replace(train_config, precision=fast)
    if config.compile:
        settings[f"semires, {fast}, compiled"] = dataclasses.replace(train_config, precision=fast, compile=True)
    return settings


def _notes(config: StepBenchConfig, train_config: TrainConfig, data: StepData, workers: int) -> list[str]:
    samples = "scenes of RefShapes, which ours has in memory after their first reading, as in training"
    if not data.is_small:
        samples = (
            f"random photographs, JPEG, 480x640, which ours reads in {workers} processes beside it, nothing ahead of "
            "its turn"
        )
    return [
        f"median of {config.repeats} rounds in turns, {config.steps} steps a turn, on {config.device}; {samples}; "
        f"{data.num_candidates:.3g} candidates an image; {train_config.match.strategy}; weights random"
        f"{' but for the backbone' if data.is_small else ''}",
        f"{PLAIN}: the public code's steps on LAVT as written there: samples read in the main process, candidates as "
        "JSON run lengths, matching by a Python loop, AdamW with torch's defaults, EMA by a loop over the state "
        f"dict; {CLEAN_UP}: what it calls in every step, longer the more objects a process has",
        "semires in fp32 multiplies in TF32 on CUDA; on the CPU all contestants keep freed memory, as our trainer does",
        "phases: measured apart, on CUDA waiting for the device at the ends of each; load of the plain way has the "
        "views too; EMA alone: in turns",
        f"at peak: the operations of a step's matrix products and convolutions (2 a multiply-add) at the speed of a "
        f"{_peak_side(config.device)}x{_peak_side(config.device)} matrix product in the contestant's precision in the "
        "same rounds; of peak: that over the step; each contestant's own, so one that needs fewer can be faster at a "
        "lower share",
    ]


def _phases(contestants: list[Contestant], config: StepBenchConfig) -> dict[str, dict[str, float | None]]:
    """Milliseconds of a step by phase, and what no phase has as "other", in turns of their own; None where a contestant
    has no such phase."""
    seconds = dict.fromkeys((each.name for each in contestants), 0.0)
    for each in contestants:
        each.timer.enabled = True
    for _ in range(config.repeats):
        for each in contestants:
            start = perf_counter()
            each.train(config.steps)
            seconds[each.name] += perf_counter() - start
    num_steps = config.repeats * config.steps
    found: dict[str, dict[str, float | None]] = {}
    for each in contestants:
        each.timer.enabled = False
        of_step = {phase: value / num_steps for phase, value in each.timer.milliseconds.items()}
        other = 1e3 * seconds[each.name] / num_steps - sum(of_step.values())
        found[each.name] = {phase: value or None for phase, value in of_step.items()} | {"other": other}
    return found


def _operations(contestant: Contestant, config: TrainConfig, device: torch.device) -> int:
    """2 for each multiply-add of a step's forward and backward passes."""

    def batch(num_samples: int) -> tuple[Tensor, Tensor, Tensor]:
        size, tokens = config.model_image_size, LAVT_SIZES[config.model].max_tokens
        ids = torch.ones(num_samples, tokens, dtype=torch.int64, device=device)
        return torch.rand(num_samples, 3, size, size, device=device), ids, ids

    student, teacher = contestant.model, contestant.teacher
    with FlopCounterMode(display=False) as counter:
        student(*batch(config.batch_labeled + config.batch_unlabeled)).square().mean().backward()
        # As if it took gradients: without, the counter misses a kernel of the attention on the CPU.
        for parameter in teacher.parameters():
            parameter.requires_grad_(True)
        teacher(*batch(config.batch_unlabeled))
    teacher.requires_grad_(False)
    student.zero_grad(set_to_none=True)
    return int(counter.get_total_flops())


def _matrix_product(precision: str, device: torch.device) -> Callable[[], None]:
    """One product of square matrices in a contestant's precision."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    square = torch.randn(_peak_side(device), _peak_side(device), device=device, dtype=dtype)

    def multiply() -> None:
        with true_float32() if precision == "fp32" else nullcontext():
            torch.matmul(square, square)

    return _finished(multiply, device)


def _peak_side(device: torch.device) -> int:
    return PEAK_SIDES.get(device.type, PEAK_SIDES["cpu"])


def _finished(work: Callable[[], object], device: torch.device) -> Callable[[], None]:
    def run() -> None:
        work()
        finish(device)

    return run


def _allocated(device: torch.device) -> int:
    """Bytes in use on CUDA; the highest number since now is what the caller wants to know."""
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)
