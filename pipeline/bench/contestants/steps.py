"""The contestants of `semires bench step`: the plain way, and the trainer in its settings."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn

from semires.pipeline.bench.contestants.plain_lavt import PlainLavt
from semires.pipeline.bench.contestants.plain_step import CLEAN_UP, PlainSamples, PlainStep, ema_by_loop
from semires.pipeline.bench.inputs.step_data import StepData
from semires.stages.processes.timing import PhaseTimer
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_SIZES
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.models.trunk_weights import load_trunk
from semires.stages.train.reading.loading import Loader, choose_num_workers
from semires.stages.train.reading.samples import Batch
from semires.stages.train.reading.sampling import training_plan
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.step import PHASES
from semires.stages.train.trainer import Trainer

PLAIN = "written plainly"
STEP_PHASES = ("load", *PHASES, CLEAN_UP)


class Contestant(ABC):
    """What takes turns: `train(num_steps)` reads batches and trains on them."""

    name: str
    precision: str
    """What it multiplies in: fp32, tf32 or bf16."""
    timer: PhaseTimer
    model: nn.Module
    teacher: nn.Module
    is_compiled: bool = False

    @abstractmethod
    def train(self, num_steps: int) -> None:
        """So many steps, samples included; to their end on the device."""

    @abstractmethod
    def update_teacher(self) -> None:
        """The EMA alone."""


class Sources:
    """What reads labeled and unlabeled samples for the contestants of ours, one after another.

    Its processes are started here: from a process that holds models they would keep a copy of what it then changes.
    """

    def __init__(self, config: TrainConfig, data: StepData, device: torch.device) -> None:
        self.samples = data.samples(make_tokenizer(config), config.model_image_size)
        assert self.samples.unlabeled is not None
        self._device = device
        self._loaders = [
            (Loader(samples, choose_num_workers(samples, num_loaders=2), pin_memory=device.type == "cuda"), batch_size)
            for samples, batch_size in (
                (self.samples.labeled, config.batch_labeled),
                (self.samples.unlabeled, config.batch_unlabeled),
            )
        ]
        self._num_reads = 0
        for batches in self.read(1):
            next(batches)

    @property
    def num_workers(self) -> int:
        """Of all processes that read samples."""
        return sum(loader.num_workers for loader, _ in self._loaders)

    def read(self, num_steps: int) -> list[Iterator[Batch]]:
        """Labeled and unlabeled batches on the device, for so many steps and not one more: nothing is read ahead while
        others have their turn."""
        self._num_reads += 1
        return [self._batches(loader, batch_size, num_steps) for loader, batch_size in self._loaders]

    def _batches(self, loader: Loader, batch_size: int, num_steps: int) -> Iterator[Batch]:
        plan = training_plan(loader.samples.num_expressions, batch_size, num_steps, self._num_reads)
        return (batch.to(self._device) for batch in loader.read(plan))

    def close(self) -> None:
        """End the processes."""
        for loader, _ in self._loaders:
            loader.close()


class Plain(Contestant):
    """The step of plain_step.py on the network of plain_lavt.py."""

    def __init__(self, config: TrainConfig, data: StepData, device: torch.device) -> None:
        lavt = make_lavt(config)
        self.name, self.precision = PLAIN, "fp32"
        self.timer = PhaseTimer(STEP_PHASES, device, enabled=False)
        self._device, self._alpha = device, config.alpha
        self._step = PlainStep(config, PlainLavt(lavt), device, 10_000, self.timer.phase)
        self.model, self.teacher = self._step.student, self._step.teacher
        size = lavt.image_size
        self._labeled, self._unlabeled = (
            PlainSamples(data, refs, lavt.tokenizer, size, config, is_labeled=is_labeled).batches(batch_size)
            for refs, batch_size, is_labeled in (
                (data.labeled, config.batch_labeled, True),
                (data.unlabeled, config.batch_unlabeled, False),
            )
        )

    def train(self, num_steps: int) -> None:
        """See `Contestant`."""
        with true_float32():
            for _ in range(num_steps):
                with self.timer.phase("load"):
                    labeled, unlabeled = next(self._labeled), next(self._unlabeled)
                self._step(labeled, unlabeled)
            finish(self._device)

    def update_teacher(self) -> None:
        """See `Contestant`."""
        ema_by_loop(self.teacher, self.model, self._alpha)


class Ours(Contestant):
    """The trainer with a config. folder: of the run, which writes nothing."""

    def __init__(self, name: str, config: TrainConfig, sources: Sources, device: torch.device, folder: Path) -> None:
        self.name, self.is_compiled = name, config.compile
        self.precision = "tf32" if device.type == "cuda" and config.precision == "fp32" else config.precision
        self.timer = PhaseTimer(STEP_PHASES, device, enabled=False)
        self._device = device
        self._sources = sources
        self._trainer = Trainer(config, make_lavt(config), sources.samples, RunFolder(folder / name), device)
        self._trainer.gradients.phase = self.timer.phase
        assert self._trainer.teacher is not None
        self._ema = self._trainer.teacher
        self.model, self.teacher = self._trainer.model, self._ema.model

    def train(self, num_steps: int) -> None:
        """See `Contestant`."""
        labeled, unlabeled = self._sources.read(num_steps)
        for _ in range(num_steps):
            with self.timer.phase("load"):
                batches = next(labeled), next(unlabeled)
            self._trainer.train_step(*batches)
        finish(self._device)

    def update_teacher(self) -> None:
        """See `Contestant`."""
        self._ema.update(self._trainer.model)


def make_lavt(config: TrainConfig) -> Lavt:
    """The same weights at each call: nano with its pre-trained backbone, others random; no file from elsewhere."""
    torch.manual_seed(0)
    sizes = LAVT_SIZES[config.model].resized(image_size=config.image_size)
    lavt = Lavt(sizes, make_tokenizer(config))
    if config.model == "nano":
        load_trunk(lavt.visual, weights_folder() / "nano_swin.safetensors")
    lavt.parameter_groups(weight_decay=config.weight_decay, learning_rate=config.learning_rate)
    return lavt


def finish(device: torch.device) -> None:
    """Wait until the device has done what was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def make_tokenizer(config: TrainConfig) -> Tokenizer:
    """Nano's, whose ids all sizes have rows for."""
    max_tokens = LAVT_SIZES[config.model].max_tokens
    return Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=max_tokens)


@contextmanager
def true_float32() -> Iterator[None]:
    """Without the TF32 that a trainer of ours allows the whole process."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
