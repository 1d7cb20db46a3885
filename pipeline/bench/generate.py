"""`semires bench generate`: our mask generator beside `SamAutomaticMaskGenerator`, or SAM 2's, as installed.

Same model, settings and images in the same run; at every image, or as many as ours is given at once, the contestants
take turns. The masks are compared before anything is timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from segment_anything import sam_model_registry

from semires.cache.candidates import Candidates
from semires.cache.writer import StoreWriter
from semires.pipeline.bench.contestants.generators import (
    Contestant,
    generate_all,
    network_milliseconds,
    original_of,
    resident_memory,
)
from semires.pipeline.bench.contestants.sam2_original import INSTALL
from semires.pipeline.bench.inputs.manifest import bench_manifest
from semires.pipeline.bench.inputs.random_sam import MIN_MASKS, random_sam, random_sam2, settings_for
from semires.pipeline.bench.measures.agreement import NOT_COMPARED, Masks, agreement
from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine
from semires.stages.cache_sam.generator.mask_generator import PHASES, MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings, precision_of
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import load_sam
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS as SAM2_SETTINGS
from semires.stages.cache_sam.sources import folder_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image
from semires.stages.data.refshapes.scene import make_scene

SAM2 = "sam2"
"""The `sam` that is transformers' SAM 2 in the shape of SAM 2.1's hiera-tiny, with random weights."""

# Scenes are 96x128; so much larger they have the size of a COCO photograph, 480x640.
SCALE = 5
# Images that thresholds for random weights are set by.
NUM_CALIBRATED = 2

Pixels = NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class GenerateBenchConfig:
    """What to measure."""

    sam: str = "tiny"
    """A name that `load_sam` knows, or `SAM2`; vit_b, vit_l and vit_h without a checkpoint get random weights."""
    checkpoint: Path | None = None
    """Weights of `sam`."""
    images: Path | None = None
    """Folder of photographs; None: RefShapes scenes, for other SAMs than the tiny one enlarged to 480x640."""
    num_images: int = 8
    """Images; of a folder that has fewer, all."""
    points_per_side: int | None = None
    """Prompts in each direction; None: what `semires cache-sam` takes for this SAM."""
    precision: str | None = None
    """Another contestant of ours beside float32, if it is another; None: bf16 on CUDA, none on CPU."""
    compile: bool = False
    """Let ours in the last precision also run compiled."""
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    """Where all contestants run."""
    repeats: int = 3
    """Rounds over the images; the fastest and slowest of three count for nothing (median)."""


def bench_generate(config: GenerateBenchConfig) -> Bench:
    """Measure all contestants on `config.device`. InputError where the SAM, the images or the precision are wrong."""
    precision = precision_of(config.precision, config.device)
    if config.sam == SAM2 and config.checkpoint is not None:
        raise InputError(f"--sam-checkpoint: expected none, found {config.checkpoint}; --sam {SAM2} has random weights")
    with tempfile.TemporaryDirectory(prefix="semires-bench-") as folder:
        paths = _image_files(config, Path(folder))
        images = [load_image(path) for path in paths]
        is_random = config.checkpoint is None and config.sam in (*sam_model_registry, SAM2)
        loaded = None if is_random else load_sam(config.sam, config.checkpoint, config.device)
        settings = loaded.settings if loaded else SAM2_SETTINGS if config.sam == SAM2 else GeneratorSettings()
        if config.points_per_side is not None:
            settings = replace(settings, points_per_side=config.points_per_side)
        if loaded is None:
            drawn = random_sam2 if config.sam == SAM2 else partial(random_sam, config.sam)
            model = drawn(images[0], config.device)
            settings = settings_for(model, images[:NUM_CALIBRATED], settings)
        else:
            model = loaded.sam
        original = original_of(model)
        contestants = [*([] if original is None else [original]), Contestant(precision="fp32")]
        if precision != "fp32":
            contestants.append(Contestant(precision=precision))
        if config.compile:
            contestants.append(replace(contestants[-1], compiled=True))
        bench = _Measurement(model, settings, images, config, Path(folder))
        rows, notes = bench.run(contestants, paths)
    heights_widths = sorted({image.shape[:2] for image in images})
    sizes = ", ".join(f"{height}x{width}" for height, width in heights_widths[:3])
    first = [
        f"{len(images)} images of {sizes}{', ...' if len(heights_widths) > 3 else ''}, "
        f"{settings.points_per_side}x{settings.points_per_side} points, on {config.device}; per image the median of "
        f"{config.repeats} turns; ours is given as many images at once as cache-sam gives it",
        "peak memory: over that of the loaded model, on CPU at the largest image",
        "load to commit: an image, measured apart",
    ]
    if original is None:
        is_sam2 = type(model).__name__ == "Sam2Model"
        first.append(
            f"beside no other: the package sam2 is not installed ({INSTALL})"
            if is_sam2
            else "beside no other: the model's authors wrote no such generator"
        )
    else:
        first.append(
            f"equal masks, best IoU: against the masks of {original.name}'s generator; its select is all but the two "
            "networks"
        )
    if is_random:
        first.append(
            f"random weights: predicted IoU above {settings.pred_iou_thresh:.4g}, stability above "
            f"{settings.stability_score_thresh:.4g} at an offset of {settings.stability_score_offset:.3g} and no NMS, "
            f"so that {MIN_MASKS} masks an image or more survive; agreement of lower precision says nothing"
        )
    name = "SAM 2.1 hiera-tiny" if config.sam == SAM2 else f"SAM {config.sam}"
    return Bench(title=f"Mask generation: {name}", machine=machine(), rows=rows, notes=first + notes)


class _Measurement:
    """One model, its settings and images, and a folder for what is written."""

    def __init__(
        self,
        model: Any,
        settings: GeneratorSettings,
        images: Sequence[Pixels],
        config: GenerateBenchConfig,
        folder: Path,
    ) -> None:
        self._model = model
        self._settings = settings
        self._images = images
        self._config = config
        self._folder = folder
        self._is_cuda = config.device.type == "cuda"

    def run(self, contestants: Sequence[Contestant], paths: Sequence[Path]) -> tuple[list[dict[str, Cell]], list[str]]:
        """The table's rows and the notes that come out of measuring."""
        notes: list[str] = []
        generators: dict[str, Any] = {}
        masks: dict[str, list[Masks]] = {}
        candidates: dict[str, list[Candidates]] = {}
        megabytes: dict[str, float | None] = {}
        for contestant in contestants:
            name = contestant.name
            if self._is_cuda:
                torch.cuda.reset_peak_memory_stats(self._config.device)
                start = torch.cuda.memory_allocated(self._config.device)
            generator = generators[name] = contestant.build(self._model, self._settings)
            if contestant.compiled:
                seconds = generator.warm_up(*self._images[0].shape[:2])
                notes.append(f"{name}: compiled in {seconds:.1f} s, which count nowhere else")
            found = generate_all(generator, self._images, contestant.at_once(self._model))
            if isinstance(generator, MaskGenerator):
                candidates[name] = found
                masks[name] = [each.masks() for each in found]
            else:
                masks[name] = [_stack(each, image) for each, image in zip(found, self._images, strict=True)]
            if self._is_cuda:
                peak = torch.cuda.max_memory_allocated(self._config.device)
                megabytes[name] = (peak - start) / 1e6
        if not self._is_cuda:
            megabytes = self._memory_on_cpu(contestants)
        milliseconds = self._time(contestants, generators)
        load_ms = _median_ms([partial(load_image, path) for path in paths], self._config.repeats)

        first = contestants[0].name
        original = first if contestants[0].precision is None else None
        columns: dict[str, dict[str, Cell]] = {}
        for contestant in contestants:
            name = contestant.name
            agreed = agreement(masks[name], masks[original]) if original else NOT_COMPARED
            phases: dict[str, float | None] = {"load": None, **self._phases(contestant), "commit": None}
            if name in candidates:
                phases |= {"load": load_ms, "commit": self._commit_ms(candidates[name])}
                if agreed.lowest_iou is not None:
                    notes.append(
                        f"{name}: best IoU {agreed.mean_iou:.5f} in the mean, {agreed.lowest_iou:.4f} at least"
                    )
            columns[name] = {
                "images/s": 1e3 / milliseconds[name],
                f"ratio to {first}": milliseconds[first] / milliseconds[name],
                "masks an image": statistics.mean(map(len, masks[name])),
                "equal masks, %": None if agreed.equal is None else 100 * agreed.equal,
                "best IoU, mean": agreed.mean_iou,
                "peak memory, MB": megabytes[name],
                **{f"{phase}, ms": value for phase, value in phases.items()},
            }
        figures = list(columns[first])
        rows = [{"figure": figure, **{name: column[figure] for name, column in columns.items()}} for figure in figures]
        fewest = min(map(len, masks[first]))
        if fewest < MIN_MASKS and self._config.sam != "tiny":
            notes.append(
                f"only {fewest} masks of an image survive: less than the {MIN_MASKS} that make a fair comparison"
            )
        return rows, notes

    def _time(self, contestants: Sequence[Contestant], generators: dict[str, Any]) -> dict[str, float]:
        """Milliseconds an image by contestant; all have seen every image already."""
        sums = dict.fromkeys(generators, 0.0)

        # Either ends with masks on the host, so there is nothing left on the device to wait for.
        at_once = {contestant.name: contestant.at_once(self._model) for contestant in contestants}
        in_turn = max(at_once.values())
        for start in range(0, len(self._images), in_turn):
            images = self._images[start : start + in_turn]
            functions = {
                name: partial(generate_all, generator, images, at_once[name]) for name, generator in generators.items()
            }
            for name, value in interleaved_medians(functions, repeats=self._config.repeats, warmup=0).items():
                sums[name] += value / len(self._images)
        return sums

    def _phases(self, contestant: Contestant) -> dict[str, float | None]:
        """Milliseconds an image of each of `PHASES`, measured in a pass of its own."""
        phases: dict[str, float | None] = dict.fromkeys(PHASES)
        if contestant.precision is None:
            original = contestant.build(self._model, self._settings)
            start = time.perf_counter()
            with network_milliseconds(original) as spent:
                for image in self._images:
                    original.generate(image)
            spent["select"] = (time.perf_counter() - start) * 1e3 - spent["encode"] - spent["decode"]
            return phases | {name: value / len(self._images) for name, value in spent.items()}
        generator = MaskGenerator(
            proposer_of(self._model, contestant.precision, compiled=contestant.compiled), self._settings, profile=True
        )
        if contestant.compiled:
            generator.warm_up(*self._images[0].shape[:2])
        for image in self._images:
            generator.generate(0, image)
        return phases | {name: value / len(self._images) for name, value in generator.timings.items()}

    def _commit_ms(self, candidates: Sequence[Candidates]) -> float:
        """Milliseconds an image of adding to a store and committing, in the calling thread."""
        elapsed = []
        for repeat in range(1 + self._config.repeats):
            location = Path(tempfile.mkdtemp(dir=self._folder)) / "store.zarr"
            with StoreWriter(location, bench_manifest()) as writer:
                start = time.perf_counter()
                for each in candidates:
                    writer.add(each)
                writer.commit()
                if repeat > 0:  # the first one loads the codec
                    elapsed.append(time.perf_counter() - start)
        return statistics.median(elapsed) * 1e3 / len(candidates)

    def _memory_on_cpu(self, contestants: Sequence[Contestant]) -> dict[str, float | None]:
        """Peak megabytes, each in a process of its own; None for a compiled one, whose compiler takes the most."""
        file = self._folder / "model.pt"
        torch.save(self._model, file)
        largest = max(self._images, key=lambda image: image.size)
        return {
            contestant.name: None if contestant.compiled else resident_memory(contestant, file, self._settings, largest)
            for contestant in contestants
        }


def _median_ms(functions: Sequence[Callable[[], object]], repeats: int) -> float:
    named = {str(number): function for number, function in enumerate(functions)}
    return statistics.mean(interleaved_medians(named, repeats=repeats).values())


def _stack(records: Sequence[dict[str, Any]], image: Pixels) -> Masks:
    if not records:
        return np.zeros((0, *image.shape[:2]), dtype=np.bool_)
    return np.stack([record["segmentation"] for record in records])


def _image_files(config: GenerateBenchConfig, folder: Path) -> list[Path]:
    """The photographs, or scenes written as PNG, so that loading is measured as well."""
    if config.images is not None:
        return [source.path for source in folder_images(config.images)[: config.num_images]]
    scale = 1 if config.sam == "tiny" else SCALE
    paths = []
    for index in range(config.num_images):
        scene = make_scene("sam_check", 0, index).image
        paths.append(folder / f"scene-{index}.png")
        Image.fromarray(scene.repeat(scale, axis=0).repeat(scale, axis=1)).save(paths[-1])
    return paths
