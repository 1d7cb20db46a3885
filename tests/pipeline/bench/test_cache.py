import numpy as np
import pytest

from semires.cache.errors import StoreError
from semires.pipeline.bench.cache import CacheBenchConfig, bench_cache, resize
from semires.pipeline.bench.inputs.mask_files import Npy

TINY = CacheBenchConfig(
    num_images=3,
    num_masks=4,
    height=30,
    width=44,
    view_size=16,
    repeats=2,
    open_images=40,
    open_images_per_part=7,
    memory_images=30,
)


def test_bench_cache__every_contestant_with_real_numbers() -> None:
    bench = bench_cache(TINY)
    rows = {row["contestant"]: row for row in bench.rows}
    files = ["JSON run lengths, Python loop", "COCO RLE, pycocotools", ".npy of bool"]
    assert list(rows) == [*files, "semires, native", "semires, 16 view", "semires, both"]
    figures = {name: [key for key, value in row.items() if value is not None][1:] for name, row in rows.items()}
    for name in files:
        assert figures[name] == ["bytes", "write ms", "tensor ms", "native ms"]
    assert figures["semires, native"] == ["bytes", "write ms", "native ms"]
    assert figures["semires, 16 view"] == ["bytes", "write ms", "tensor ms", "packed ms"]
    numbers = [value for row in rows.values() for value in row.values() if isinstance(value, int | float)]
    assert all(np.isfinite(number) and number > 0 for number in numbers)
    assert rows[".npy of bool"]["bytes"] == 4 * 30 * 44 + 128  # the header
    assert "opening a store of 40 images" in "\n".join(bench.notes)
    assert sum("resident memory" in note for note in bench.notes) == 2


def test_bench_cache__wrong_masks_are_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    read = Npy.read
    monkeypatch.setattr(Npy, "read", lambda self, number: ~read(self, number))
    with pytest.raises(RuntimeError, match=r"image 0: .*\.npy of bool"):
        bench_cache(TINY)


def test_cache_bench_config__codec() -> None:
    with pytest.raises(StoreError, match="codec: expected zstd-LEVEL"):
        CacheBenchConfig(codec="gzip")
    assert CacheBenchConfig().codec == "blosc-zstd-5-shuffle"


def test_resize__samples_as_views_do() -> None:
    masks = np.zeros((1, 4, 6), np.bool_)
    masks[0, 1, 4] = True
    assert resize(masks, 2).tolist() == [[[False, True], [False, False]]]
