"""`semires bench handout`: what handing images to many workers costs, with a sleep in place of the device's work.

The workers are threads of one process, each with its own connection to a torch key-value store on this machine, as
torchrun's workers have; all else is the run of stage one: claims, loading, commits, and the wait for the last.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.bench.inputs.manifest import bench_manifest
from semires.pipeline.bench.measures.report import Bench, Cell, machine
from semires.stages.cache_sam.filling import fill_store
from semires.stages.cache_sam.sources import ImageSource
from semires.stages.cache_sam.workers import WorkerGroup

_NUM_CLAIMS = 1000
_MASKS = np.zeros((4, 48, 64), dtype=np.bool_)


@dataclass(frozen=True, kw_only=True)
class HandoutBenchConfig:
    """What to measure."""

    workers: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Numbers of workers, one run each."""
    images_per_worker: int = 20
    """Images of a run, by worker."""
    seconds: float = 1.0
    """Sleep an image."""
    images_at_once: int = 1
    """Images that a worker sleeps over together."""


def bench_handout(config: HandoutBenchConfig) -> Bench:
    """Measure one run for each number of workers, one after the other."""
    ideal = config.images_per_worker * config.seconds
    rows: list[dict[str, Cell]] = []
    with tempfile.TemporaryDirectory(prefix="semires-bench-") as folder:
        path = Path(folder) / "image.png"
        Image.fromarray(np.zeros((*_MASKS.shape[1:], 3), dtype=np.uint8)).save(path)
        for num_workers in config.workers:
            images = [ImageSource(image_id=n, path=path) for n in range(num_workers * config.images_per_worker)]
            generated, elapsed, claim_us = _run(images, Path(folder) / f"{num_workers}.zarr", num_workers, config)
            rows.append(
                {
                    "workers": num_workers,
                    "images": len(images),
                    "last image, s": generated,
                    "of linear": ideal / generated,
                    "last commit, s": elapsed,
                    "with commits": ideal / elapsed,
                    "claim, us": claim_us,
                }
            )
    notes = [
        f"{config.images_per_worker} images a worker, {config.seconds:g} s of sleep each, {config.images_at_once} at "
        f"once; linear: {ideal:g} s. Workers are threads of one process, and share its cores and Python's lock.",
        "of linear: until the last image is through; with commits: until the last worker has written its last part and "
        "returned, which all do at one moment here, through one process's event loop",
        "target: 0.95 of linear or more with 1 to 16 workers",
    ]
    return Bench(title="Handing images to workers", machine=machine(), rows=rows, notes=notes)


def _run(
    images: list[ImageSource], location: Path, num_workers: int, config: HandoutBenchConfig
) -> tuple[float, float, float]:
    """Seconds to the last image's end and to the last worker's; microseconds of a claim with nobody else there."""
    server = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)

    def join(rank: int) -> WorkerGroup:
        client = dist.TCPStore("127.0.0.1", server.port, is_master=False, wait_for_workers=False)
        return WorkerGroup(client, rank, num_workers)

    def sleep(image_ids: Sequence[int], pixels: Sequence[NDArray[np.uint8]]) -> list[Candidates]:
        time.sleep(config.seconds * len(image_ids))
        ones = np.ones(len(_MASKS))
        ends.append(time.perf_counter())
        return [Candidates.from_masks(each, _MASKS, ones, ones, np.ones((len(_MASKS), 2))) for each in image_ids]

    def work(group: WorkerGroup) -> None:
        fill_store(images, location, bench_manifest(), sleep, group=group, images_at_once=config.images_at_once)

    ends: list[float] = []
    groups = [join(rank) for rank in range(num_workers)]
    began = time.perf_counter()
    with ThreadPoolExecutor(num_workers) as pool:
        list(pool.map(work, groups))
    elapsed = time.perf_counter() - began
    start = time.perf_counter()
    for _ in groups[0].positions(len(images), _NUM_CLAIMS):  # of a round that nobody walks
        pass
    return max(ends) - began, elapsed, (time.perf_counter() - start) * 1e6 / _NUM_CLAIMS
