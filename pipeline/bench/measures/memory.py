"""How much memory writing a store takes: measured in a process of its own, whose peak is this work's and no other's."""

from __future__ import annotations

import ctypes
import multiprocessing
import resource
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from semires.cache.candidates import Candidates
from semires.cache.storage.codec import DEFAULT_CODEC
from semires.cache.writer import StoreWriter
from semires.pipeline.bench.inputs.coco_shapes import coco_masks
from semires.pipeline.bench.inputs.manifest import bench_manifest

_WARM_UP = 0.1  # of the images: imports, buffers and what the allocator keeps are then there


def writing_memory(
    location: Path,
    *,
    num_images: int,
    num_masks: int,
    height: int,
    width: int,
    images_per_part: int = 256,
    bytes_per_part: int = 64 * 2**20,
    codec: str = str(DEFAULT_CODEC),
) -> tuple[float, float]:
    """Peak resident memory over the start while writing a new store at `location`, in MB.

    First after a tenth of the `num_images` images, then after all: a writer that keeps what it wrote grows in between.
    The start is a process that has imported everything and written nothing.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(
            _write, location, num_images, (num_masks, height, width), (images_per_part, bytes_per_part), codec
        ).result()


def _write(
    location: Path, num_images: int, shape: tuple[int, int, int], part: tuple[int, int], codec: str
) -> tuple[float, float]:
    num_masks, height, width = shape
    masks = coco_masks(0, num_masks=num_masks, height=height, width=width)
    first = Candidates.from_masks(0, masks, np.ones(num_masks), np.ones(num_masks), np.ones((num_masks, 2)))
    del masks
    start, early = peak_memory(), 0.0
    with StoreWriter(
        location, bench_manifest(), images_per_part=part[0], bytes_per_part=part[1], codec=codec
    ) as writer:
        for number in range(num_images):
            if number == int(num_images * _WARM_UP):
                early = peak_memory() - start
            # Arrays of its own for every image, as stage one makes them.
            copies = {name: getattr(first, name).copy() for name in _ARRAYS}
            writer.add(Candidates(image_id=number + 1, height=height, width=width, **copies))
    return early, peak_memory() - start


_ARRAYS = ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy")


def peak_memory() -> float:
    """Highest resident memory of this process so far, or since Linux was told to forget it, in MB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux carries ru_maxrss over from the process that started this one, VmHWM it does not.
        lines = dict(line.split(":", 1) for line in status.read_text(encoding="utf-8").splitlines())
        return int(lines["VmHWM"].split()[0]) / 1e3
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1e6 if sys.platform == "darwin" else 1e3)


def forget_peak() -> float:
    """Forget the highest resident memory so far, where the system can (Linux), and return what is left of it in MB.

    What was freed and is still held goes back to the system first (glibc): it would hide what is taken next.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    forget = Path("/proc/self/clear_refs")
    if forget.exists():
        forget.write_text("5", encoding="utf-8")
    return peak_memory()
