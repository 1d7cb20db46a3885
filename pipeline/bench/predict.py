"""`semires bench predict`: images through a model, one expression at a time beside ours, in batches with reading ahead.

All contestants hold the same model, opened once, and read the same files; a round is all images from their files to
their masks, which the contestants do in turns. The masks are compared before anything is timed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine
from semires.pipeline.predicting.answering import answers
from semires.pipeline.predicting.predictor import Prediction, Predictor
from semires.pipeline.predicting.tasks import Task
from semires.stages.cache_sam.sources import folder_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image
from semires.stages.data.refshapes.scene import make_scene

PLAIN = "one at a time"
"""A loop in the main thread: read an image, then a pass of the model for each of its expressions."""

# Scenes are 96x128; so much larger they have the size of a COCO photograph, 480x640.
SCALE = 5
EXPRESSIONS = ("the red ball", "small blue house on the left", "green tree", "big yellow one in the middle")
# Share of pixels that may differ: a batch of another size rounds otherwise, and a pixel at a rim may fall to either
# side.
TOLERANCE = 1e-3


@dataclass(frozen=True, kw_only=True)
class PredictBenchConfig:
    """What to measure."""

    run: Path | None = None
    """Folder of a run whose model answers."""
    model: str | None = None
    """In place of `run` the folder of a model or its hub name; of neither the shipped model."""
    images: Path | None = None
    """Folder of photographs; None: RefShapes scenes enlarged to 480x640, written as JPEG."""
    num_images: int = 32
    """Images; of a folder that has fewer, all."""
    num_expressions: int = 2
    """Expressions about each image, 1 to `len(EXPRESSIONS)`."""
    batch_size: int = 8
    """Expressions that ours computes at once."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where all contestants run."""
    repeats: int = 3
    """Rounds over the images; in each every contestant takes its turn."""
    threads: int = 1
    """Threads on the CPU. The thread that reads ahead comes to these."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_expressions <= len(EXPRESSIONS):
            raise InputError(f"--expressions: expected 1 to {len(EXPRESSIONS)}, found {self.num_expressions}")


def bench_predict(config: PredictBenchConfig) -> Bench:
    """Measure all contestants on `config.device`; InputError where the model or the photographs cannot be had."""
    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads)
    try:
        predictor = Predictor.load(run=config.run, model=config.model, device=config.device)
        with tempfile.TemporaryDirectory() as folder:
            paths = _image_files(config, Path(folder))
            tasks = [Task(image=path, expressions=EXPRESSIONS[: config.num_expressions]) for path in paths]
            rows, agreement = _measure(predictor, tasks, config)
        found_on = machine()
    finally:
        torch.set_num_threads(threads)
    size = predictor.model.image_size
    notes = [
        f"{len(tasks)} {'RefShapes scenes of 480x640, JPEG' if config.images is None else 'photographs'}, "
        f"{config.num_expressions} expressions each; {type(predictor.model).__name__} at {size}x{size}, on "
        f"{config.device}; median of {config.repeats} rounds in turns",
        "from the files to masks at the images' sizes; opening the model, and writing, are not in it. one at a time: "
        "the main thread reads an image, then the model answers its expressions one after the other",
        agreement,
    ]
    return Bench(title="Predicting", machine=found_on, rows=rows, notes=notes)


def _measure(predictor: Predictor, tasks: list[Task], config: PredictBenchConfig) -> tuple[list[dict[str, Cell]], str]:
    """A row for each contestant, and how well their masks agree, in words."""
    contestants = {PLAIN: partial(_one_at_a_time, predictor, tasks)}
    for batch_size in dict.fromkeys((1, config.batch_size)):
        name = f"semires, read ahead, {f'batches of {batch_size}' if batch_size > 1 else 'no batches'}"
        contestants[name] = partial(_ours, predictor, tasks, batch_size)
    first = [prediction.mask for prediction in contestants[PLAIN]()]
    differing = max(_differing(first, contestants[name]()) for name in list(contestants)[1:])
    if not differing <= TOLERANCE:
        raise RuntimeError(f"expected equal masks of all contestants, {differing:.2g} of the pixels differ")
    times = interleaved_medians(
        {name: partial(_exhaust, contestant) for name, contestant in contestants.items()}, repeats=config.repeats
    )
    num_masks = len(first)
    rows: list[dict[str, Cell]] = [
        {
            "contestant": name,
            "images/s": len(tasks) * 1e3 / ms,
            "masks/s": num_masks * 1e3 / ms,
            "ms a mask": ms / num_masks,
            "ratio": times[PLAIN] / ms,
        }
        for name, ms in times.items()
    ]
    num_full = sum(bool(mask.any()) for mask in first)  # empty ones agree whatever computed them
    return rows, (
        f"{num_full} of {num_masks} masks are not empty; of all pixels {differing:.2g} differ from one at a time's"
    )


def _one_at_a_time(predictor: Predictor, tasks: list[Task]) -> Iterator[Prediction]:
    for task in tasks:
        pixels = load_image(task.image, upright=True)
        for expression in task.expressions:
            yield from predictor.predict(pixels, [expression])


def _ours(predictor: Predictor, tasks: list[Task], batch_size: int) -> Iterator[Prediction]:
    for answer in answers(predictor, tasks, batch_size=batch_size):
        if answer.prediction is None:
            raise InputError(f"{answer.image.source.path}: {answer.image.reason}")
        yield answer.prediction


def _exhaust(contestant: partial[Iterator[Prediction]]) -> None:
    """Every mask is on the CPU when it is given, so nothing is left to wait for."""
    for _ in contestant():
        pass


def _differing(first: list[NDArray[np.bool_]], found: Iterator[Prediction]) -> float:
    differing = sum(int((mask != other.mask).sum()) for mask, other in zip(first, found, strict=True))
    return differing / sum(mask.size for mask in first)


def _image_files(config: PredictBenchConfig, folder: Path) -> list[Path]:
    """The photographs, or scenes written as such."""
    if config.images is not None:
        return [source.path for source in folder_images(config.images)[: config.num_images]]
    paths = []
    for index in range(config.num_images):
        scene = make_scene("sam_check", 0, index).image
        paths.append(folder / f"scene-{index}.jpg")
        Image.fromarray(scene.repeat(SCALE, axis=0).repeat(SCALE, axis=1)).save(paths[-1], quality=95)
    return paths
