"""`semires bench cache`: the candidate store beside what else holds candidate masks, same masks, same run.

Every other form gets bool masks at native size and gives them; for the training size all masks of an image are resized
at once, with the view's own sampling. The store gets packed candidates, as stage one hands them over, and gives the
view packed, as training takes it, or unpacked. All is read back and compared before any reading is timed.
"""

from __future__ import annotations

import statistics
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numcodecs import Blosc, Zstd
from numpy.typing import NDArray
from zarr.codecs import ZstdCodec

from semires.cache.bits import nearest_indices, unpack_flat
from semires.cache.candidates import Candidates
from semires.cache.parts import PartIndex, index_columns, new_part_name
from semires.cache.reader import MASK_COLUMNS, CandidateStore
from semires.cache.schema import PARTS, VIEWS
from semires.cache.storage.codec import DEFAULT_CODEC, Codec
from semires.cache.storage.hierarchy import Storage
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter
from semires.pipeline.bench.inputs.coco_shapes import coco_masks
from semires.pipeline.bench.inputs.manifest import bench_manifest
from semires.pipeline.bench.inputs.mask_files import CocoRle, MaskFiles, Masks, Npy, RunLengthJson
from semires.pipeline.bench.measures.memory import writing_memory
from semires.pipeline.bench.measures.report import Bench, Cell, interleaved_medians, machine

NATIVE = "semires, native"


@dataclass(frozen=True, kw_only=True)
class CacheBenchConfig:
    """What to measure."""

    num_images: int = 24
    """Images written and read."""
    num_masks: int = 100
    """Masks of each image."""
    height: int = 480
    """Image height in pixels."""
    width: int = 640
    """Image width in pixels."""
    view_size: int = 480
    """Side of the training size in pixels."""
    repeats: int = 15
    """Rounds; in each every contestant reads one image."""
    codec: str = str(DEFAULT_CODEC)
    """The store's codec (see `semires.cache.storage.codec`)."""
    open_images: int = 17_000
    """Images of a store that is opened."""
    open_images_per_part: int = 17
    """Its images in a part; 17 of 100 masks at 480x640 are 64 MiB."""
    memory_images: int = 20_000
    """Small images (5 masks of 96x128) written to watch the memory; 200 of the benchmark's own size for this many."""

    def __post_init__(self) -> None:
        Codec.parse(self.codec)


def bench_cache(config: CacheBenchConfig) -> Bench:
    """Measure all contestants in a temporary folder, in this process and on one thread of torch's."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="semires-bench-") as folder:
            return _bench_in(Path(folder), config)
    finally:
        torch.set_num_threads(threads)


def resize(masks: Masks, size: int) -> Masks:
    """Bool [M, H, W] to bool [M, size, size], nearest-neighbour, sampled as views are."""
    rows, columns = (nearest_indices(side, size) for side in masks.shape[1:])
    # Along one axis at a time: many times as fast as one indexing by both.
    return masks.take(rows, axis=1).take(columns, axis=2)


def _bench_in(folder: Path, config: CacheBenchConfig) -> Bench:
    images = [
        coco_masks(seed, num_masks=config.num_masks, height=config.height, width=config.width)
        for seed in range(config.num_images)
    ]
    for name in ("json", "rle", "npy"):
        (folder / name).mkdir()
    files: dict[str, MaskFiles] = {
        "JSON run lengths, Python loop": RunLengthJson(folder / "json", height=config.height, width=config.width),
        "COCO RLE, pycocotools": CocoRle(folder / "rle"),
        ".npy of bool": Npy(folder / "npy"),
    }
    size, location = config.view_size, folder / "store.zarr"
    write_ms, packing_ms = _write(files, location, images, config.codec)
    start = time.perf_counter()
    build_view(location, size, codec=config.codec)
    view_ms = _elapsed_ms(start) / len(images)
    store, view = CandidateStore(location), CandidateView(location, size)
    _compare(files, store, view, images)
    native_ms, tensor_ms, packed_ms = _read(files, store, view, config)

    rows = [
        _row(name, _mean_bytes(form.folder, images), write_ms[name], tensor_ms[name], None, native_ms[name])
        for name, form in files.items()
    ]
    storage = Storage(str(location))
    native_bytes, view_bytes = ((storage.num_bytes(path) or 0) / len(images) for path in (PARTS, VIEWS))
    rows.append(_row(NATIVE, native_bytes, write_ms[NATIVE], None, None, native_ms[NATIVE]))
    rows.append(_row(f"semires, {size} view", view_bytes, view_ms, tensor_ms["view"], packed_ms, None))
    rows.append(_row("semires, both", native_bytes + view_bytes, write_ms[NATIVE] + view_ms, None, None, None))
    notes = [
        f"{len(images)} images written (mean), {config.repeats} reads in turns (median), one process; {config.codec}",
        f"native, tensor, packed: reading to bool at {config.height}x{config.width}, to a bool tensor at "
        f"{size}x{size}, and to one of 8 pixels a byte, which is what training takes",
        f"packing bool masks, which stage one does where SAM runs, would add {packing_ms:.1f} ms to native writing",
        f"decompressing alone would take {_decompression_ms(view, config):.2f} ms of the packed read",
        f"opening a store of {config.open_images:,} images: {_opening_ms(folder / 'many.zarr', config):.0f} ms",
    ]
    small = {"num_masks": 5, "height": 96, "width": 128}
    own = {"num_masks": config.num_masks, "height": config.height, "width": config.width}
    for name, count, shape in (
        ("small", config.memory_images, small),
        ("large", max(10, config.memory_images // 100), own),
    ):
        early, late = writing_memory(folder / f"{name}.zarr", num_images=count, codec=config.codec, **shape)
        notes.append(
            f"resident memory over the start, writing {count:,} images of {shape['num_masks']} masks "
            f"{shape['height']}x{shape['width']}: {early:.0f} MB after a tenth, {late:.0f} MB after all"
        )
    columns = f"Candidate store: {config.num_masks} masks of {config.height}x{config.width} an image"
    return Bench(title=columns, machine=machine(), rows=rows, notes=notes)


def _write(
    files: dict[str, MaskFiles], location: Path, images: Sequence[Masks], codec: str
) -> tuple[dict[str, float], float]:
    """Write everything, contestants in turns; mean milliseconds an image, and those of packing."""
    # What a process does once, such as starting zarr's event loop, is no part of writing an image.
    for form in files.values():
        form.write(0, images[0])
    with StoreWriter(location.with_name("warm-up.zarr"), bench_manifest(), codec=codec) as writer:
        writer.add(_pack(0, images[0]))
    seconds = dict.fromkeys([*files, NATIVE], 0.0)
    packing = 0.0
    writer = StoreWriter(location, bench_manifest(), codec=codec)
    for number, masks in enumerate(images):
        for name, form in files.items():
            start = time.perf_counter()
            form.write(number, masks)
            seconds[name] += time.perf_counter() - start
        start = time.perf_counter()
        candidates = _pack(number, masks)
        packing += time.perf_counter() - start
        start = time.perf_counter()
        writer.add(candidates)
        seconds[NATIVE] += time.perf_counter() - start
    start = time.perf_counter()
    writer.close()
    seconds[NATIVE] += time.perf_counter() - start
    return {name: value * 1e3 / len(images) for name, value in seconds.items()}, packing * 1e3 / len(images)


def _pack(number: int, masks: Masks) -> Candidates:
    count = len(masks)
    return Candidates.from_masks(number, masks, np.ones(count), np.ones(count), np.zeros((count, 2)))


def _compare(files: dict[str, MaskFiles], store: CandidateStore, view: CandidateView, images: Sequence[Masks]) -> None:
    """Raise RuntimeError where anything read is not what was written: times of wrong answers say nothing."""
    for number, masks in enumerate(images):
        small = unpack_flat(view[number], height=view.size, width=view.size)
        found = {name: form.read(number) for name, form in files.items()} | {NATIVE: store[number].masks()}
        wrong = [name for name, read in found.items() if not np.array_equal(read, masks)]
        if wrong or not np.array_equal(small, resize(masks, view.size)):
            raise RuntimeError(
                f"image {number}: expected the masks that were written, read others from {wrong or 'view'}"
            )


def _read(
    files: dict[str, MaskFiles], store: CandidateStore, view: CandidateView, config: CacheBenchConfig
) -> tuple[dict[str, float], dict[str, float], float]:
    """Median milliseconds an image: native bool and tensors at view size, by contestant; and the packed view."""
    size, turn = view.size, 0

    def reading(form: MaskFiles) -> Callable[[], object]:
        return lambda: form.read(turn)

    def resizing(form: MaskFiles) -> Callable[[], object]:
        return lambda: torch.from_numpy(resize(form.read(turn), size))

    native = {name: reading(form) for name, form in files.items()}
    native[NATIVE] = lambda: store[turn].masks()
    tensors = {name: resizing(form) for name, form in files.items()}
    tensors["view"] = lambda: torch.from_numpy(unpack_flat(view[turn], height=size, width=size))
    functions = {("native", name): read for name, read in native.items()}
    functions |= {("tensor", name): read for name, read in tensors.items()}
    functions["packed", ""] = lambda: torch.from_numpy(view[turn])
    by_key = {" ".join(key): function for key, function in functions.items()}
    rounds = []
    for repeat in range(config.repeats):
        turn = repeat * 7 % config.num_images  # from part to part, as a shuffled epoch goes
        rounds.append(interleaved_medians(by_key, repeats=1, warmup=1 if repeat == 0 else 0))
    medians = {key: statistics.median(each[" ".join(key)] for each in rounds) for key in functions}
    return (
        {name: medians["native", name] for name in native},
        {name: medians["tensor", name] for name in tensors},
        medians["packed", ""],
    )


def _decompression_ms(view: CandidateView, config: CacheBenchConfig) -> float:
    """Decompressing one image's view as a single chunk: what a read at training size cannot go below with its codec."""
    bits = view[0]
    codec = Codec.parse(config.codec).for_period(max(1, view.size // 8))
    compressor: Any
    if isinstance(codec, ZstdCodec):
        compressor = Zstd(level=codec.level)
    else:
        shuffle = ("noshuffle", "shuffle", "bitshuffle").index(codec.shuffle.name)
        compressor = Blosc(codec.cname.name, codec.clevel, shuffle, typesize=codec.typesize)
    compressed = compressor.encode(bits)
    out: NDArray[np.uint8] = np.empty(bits.size, np.uint8)
    return interleaved_medians({"decode": lambda: compressor.decode(compressed, out)}, repeats=config.repeats)["decode"]


def _opening_ms(location: Path, config: CacheBenchConfig) -> float:
    """Opening a store of many images up to the first look-up; of its columns there are only the checksums."""
    storage = Storage.create(str(location), bench_manifest().to_attributes())
    for first in range(0, config.open_images, config.open_images_per_part):
        ids = np.arange(first, min(first + config.open_images_per_part, config.open_images), dtype=np.int64)
        side = np.full_like(ids, 480)
        index = PartIndex(image_id=ids, height=side, width=side, masks_per_image=np.full_like(ids, 100))
        names = (*index_columns(index), *MASK_COLUMNS)
        index = replace(index, columns={name: zlib.crc32(name.encode()) for name in names})
        storage.write_group(f"{PARTS}/{new_part_name()}", index.to_attributes())

    def open_store() -> None:
        assert len(CandidateStore(location)) == config.open_images

    return interleaved_medians({"open": open_store}, repeats=3)["open"]


def _elapsed_ms(start: float) -> float:
    return (time.perf_counter() - start) * 1e3


def _mean_bytes(folder: Path, images: Sequence[Masks]) -> float:
    return sum(path.stat().st_size for path in folder.iterdir()) / len(images)


def _row(
    name: str, num_bytes: float, write: float, tensor: float | None, packed: float | None, native: float | None
) -> dict[str, Cell]:
    return {
        "contestant": name,
        "bytes": round(num_bytes),
        "write ms": write,
        "tensor ms": tensor,
        "packed ms": packed,
        "native ms": native,
    }
