"""The mask generators that `semires bench generate` measures, their memory, and where a model's own spends its time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from semires.pipeline.bench.contestants import sam2_original
from semires.pipeline.bench.measures.memory import forget_peak, peak_memory
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.run import images_at_once

SAMS_OWN = "segment-anything"
"""Name of the contestant that is SAM's own generator."""
SAM2S_OWN = "sam2"
"""And of SAM 2's."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A generator to measure; `precision` None is the model's own, called `original`, which computes in float32."""

    precision: str | None
    compiled: bool = False
    original: str = SAMS_OWN

    @property
    def name(self) -> str:
        """As the table calls it."""
        if self.precision is None:
            return self.original
        return f"semires, {self.precision}" + (", compiled" if self.compiled else "")

    def build(self, model: Any, settings: GeneratorSettings) -> Any:
        """The `MaskGenerator`, or the model's own, ready but for compiling."""
        if self.precision is not None:
            return MaskGenerator(proposer_of(model, self.precision, compiled=self.compiled), settings)
        options = {**settings.recorded(), "points_per_batch": settings.points_per_batch}
        if self.original == SAM2S_OWN:
            return sam2_original.sam2s_generator(sam2_original.sam2_original(model), **options)
        return SamsGenerator(model, **options)

    def at_once(self, model: Any) -> int:
        """Images that it is given together: as many as the run of stage one gives ours, one of the model's own."""
        if self.precision is None:
            return 1
        side = model.image_encoder.img_size if isinstance(model, Sam) else model.prompt_encoder.input_image_size
        return images_at_once(side, model.device, compiled=self.compiled)


def original_of(model: Any) -> Contestant | None:
    """The generator that the model's authors wrote, where it is installed; None where it is not, or there is none."""
    if isinstance(model, Sam):
        return Contestant(precision=None)
    if type(model).__name__ == "Sam2Model" and sam2_original.is_installed():
        return Contestant(precision=None, original=SAM2S_OWN)
    return None


def generate_all(generator: Any, images: Sequence[NDArray[np.uint8]], at_once: int) -> list[Any]:
    """What a contestant's generator finds in each image, so many given to it at once."""
    if not isinstance(generator, MaskGenerator):
        return [generator.generate(image) for image in images]
    found: list[Any] = []
    for start in range(0, len(images), at_once):
        some = range(start, min(start + at_once, len(images)))
        found += generator.generate_batch(some, images[some.start : some.stop])
    return found


class SamsGenerator(SamAutomaticMaskGenerator):
    """SAM's generator, which fails where no crop holds a mask: it gives their boxes the shape [0] and reads [0, 4]."""

    def _process_crop(self, *args: Any) -> Any:
        data = super()._process_crop(*args)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data


@contextmanager
def network_milliseconds(original: Any) -> Iterator[dict[str, float]]:
    """Milliseconds that a model's own generator spends in its image encoder and mask decoder, "encode" and "decode"."""
    model = original.predictor.model
    decoder = model.mask_decoder if isinstance(model, Sam) else model.sam_mask_decoder
    spent = {"encode": 0.0, "decode": 0.0}
    started = {"encode": 0.0, "decode": 0.0}

    def now() -> float:
        if model.device.type == "cuda":
            torch.cuda.synchronize(model.device)
        return time.perf_counter() * 1e3

    def watch(phase: str, module: torch.nn.Module) -> list[Any]:
        def before(*call: Any) -> None:
            started[phase] = now()

        def after(*call: Any) -> None:
            spent[phase] += now() - started[phase]

        return [module.register_forward_pre_hook(before), module.register_forward_hook(after)]

    hooks = watch("encode", model.image_encoder) + watch("decode", decoder)
    try:
        yield spent
    finally:
        for hook in hooks:
            hook.remove()


def resident_memory(
    contestant: Contestant, model_file: Path, settings: GeneratorSettings, image: NDArray[np.uint8]
) -> float:
    """Peak resident megabytes on the CPU over those of a process that has loaded the model, generating for `image`,
    as often as it is given images at once.

    `model_file` is a whole model that `torch.save` wrote. Measured in a process of its own: what another contestant
    gave back to the allocator would else be had for nothing.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_generate_once, contestant, model_file, settings, image, torch.get_num_threads()).result()


def _generate_once(
    contestant: Contestant, model_file: Path, settings: GeneratorSettings, image: NDArray[np.uint8], threads: int
) -> float:
    torch.set_num_threads(threads)
    model = torch.load(model_file, weights_only=False)  # our own file, written a moment ago
    start = forget_peak()
    generator = contestant.build(model, settings)
    at_once = contestant.at_once(model)
    generate_all(generator, [image] * at_once, at_once)
    return peak_memory() - start
