import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.stages.cache_sam import run
from semires.stages.cache_sam.concepts import ConceptSettings
from semires.stages.cache_sam.filling import CacheReport
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import LoadedSam, load_sam3
from semires.stages.cache_sam.run import cache_images, images_at_once
from semires.stages.cache_sam.sources import ImageSource, folder_images, train_images
from semires.stages.data.errors import InputError
from semires.stages.data.images import image_id_of, load_image
from semires.stages.data.refer import ReferDataset


@pytest.fixture
def sources(refshapes: ReferDataset) -> list[ImageSource]:
    """Three images of RefShapes."""
    return train_images(refshapes)[:3]


def test_cache_images__candidates_are_the_generators(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    report = cache_images(sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings)
    store = CandidateStore(tmp_path / "s.zarr")
    assert store.image_ids.tolist() == [1, 2, 3]
    generator = MaskGenerator(proposer_of(loaded.sam), open_settings)
    for source in sources:
        expected = generator.generate(source.image_id, load_image(source.path))
        assert np.array_equal(store[source.image_id].bits, expected.bits)
        assert np.array_equal(store[source.image_id].points_xy, expected.points_xy)
    assert report == CacheReport(num_present=0, num_added=3, num_masks=sum(store.num_masks(n) for n in (1, 2, 3)))
    assert report.num_masks > 3


def test_cache_images__several_at_once(
    tmp_path: Path,
    sources: list[ImageSource],
    loaded: LoadedSam,
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An image that the SAM cannot take costs the others nothing; encoded together they are what they are alone."""
    Image.new("RGB", (300, 1)).save(tmp_path / "thin.png")
    images = [*sources, ImageSource(image_id=4, path=tmp_path / "thin.png")]
    for number in (1, 4):
        monkeypatch.setattr(run, "images_at_once", lambda side, device, compiled, number=number: number)
        report = cache_images(
            images, tmp_path / f"{number}.zarr", split="refshapes", loaded=loaded, settings=open_settings
        )
        assert report.num_added == 3
    left, right = CandidateStore(tmp_path / "1.zarr"), CandidateStore(tmp_path / "4.zarr")
    assert left.image_ids.tolist() == right.image_ids.tolist() == [1, 2, 3]
    assert list(left.failed) == list(right.failed) == [4]
    for image_id in (1, 2, 3):
        assert np.array_equal(left[image_id].bits, right[image_id].bits)


def test_images_at_once__by_device() -> None:
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    large, small = (images_at_once(side, cuda, compiled=False) for side in (1024, 128))
    assert 1 < large < small
    assert images_at_once(128, cpu, compiled=False) == torch.get_num_threads()
    assert images_at_once(1024, cpu, compiled=False) == 1  # a stopped run gives up minutes of one
    for device in (cpu, cuda):
        assert images_at_once(128, device, compiled=True) == 1


def test_cache_images__manifest(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    cache_images(sources[:1], tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings)
    manifest = CandidateStore(tmp_path / "s.zarr").manifest
    assert (manifest.split, manifest.sam, manifest.sam_sha256) == ("refshapes", "tiny", loaded.sha256)
    assert manifest.generator == open_settings.recorded() | {"precision": "fp32"}
    assert manifest.num_images == 1


def test_cache_images__adds_only_what_is_missing(
    tmp_path: Path,
    sources: list[ImageSource],
    loaded: LoadedSam,
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    location = tmp_path / "s.zarr"
    cache_images(sources[1:2], location, split="refshapes", loaded=loaded, settings=open_settings)

    generated: list[int] = []
    original = MaskGenerator.generate_batch

    def spy(self: MaskGenerator, image_ids: Sequence[int], images: Sequence[np.ndarray]) -> object:
        generated.extend(image_ids)
        return original(self, image_ids, images)

    monkeypatch.setattr(MaskGenerator, "generate_batch", spy)
    progress: list[tuple[int, int]] = []
    report = cache_images(
        sources,
        location,
        split="refshapes",
        loaded=loaded,
        # Memory only: the candidates stay the same, the store must be taken for the same.
        settings=replace(open_settings, points_per_batch=4),
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert generated == [1, 3]
    assert (report.num_present, report.num_added) == (1, 2)
    assert progress == [(0, 2), (1, 2), (2, 2)]
    assert CandidateStore(location).image_ids.tolist() == [1, 2, 3]

    again = cache_images(sources, location, split="refshapes", loaded=loaded, settings=open_settings)
    assert again == CacheReport(num_present=3, num_added=0, num_masks=0)
    assert generated == [1, 3]


def test_cache_images__sets_aside_what_cannot_be_decoded(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    damaged = tmp_path / "damaged.png"
    damaged.write_bytes(sources[1].path.read_bytes()[:500])
    broken = [sources[0], ImageSource(image_id=2, path=damaged), sources[2]]
    location = tmp_path / "s.zarr"
    report = cache_images(broken, location, split="refshapes", loaded=loaded, settings=open_settings)
    assert (report.num_present, report.num_added, list(report.failed)) == (0, 2, [2])
    assert CandidateStore(location).image_ids.tolist() == [1, 3]
    assert CandidateStore(location).failed[2].startswith("damaged.png: expected an image, found a damaged")

    shutil.copy(sources[1].path, damaged)
    report = cache_images(broken, location, split="refshapes", loaded=loaded, settings=open_settings)
    assert (report.num_present, report.num_added, report.failed) == (2, 1, {})
    assert CandidateStore(location).failed == {}


def test_cache_images__keeps_what_was_finished_when_stopped(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    def stop(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache_images(
            sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings, on_progress=stop
        )
    assert CandidateStore(tmp_path / "s.zarr").image_ids.tolist() == [1]


def test_cache_images__parts(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    cache_images(
        sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings, images_per_part=2
    )
    assert CandidateStore(tmp_path / "s.zarr").info().num_parts == 2


def test_cache_images__image_without_masks(tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam) -> None:
    settings = GeneratorSettings(points_per_side=2, pred_iou_thresh=1.0)
    report = cache_images(sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=settings)
    assert report == CacheReport(num_present=0, num_added=3, num_masks=0)
    assert CandidateStore(tmp_path / "s.zarr")[2].num_masks == 0
    # They were looked at and are not looked at again.
    again = cache_images(sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=settings)
    assert again.num_present == 3


def test_cache_images__refuses_other_settings(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    location = tmp_path / "s.zarr"
    cache_images(sources[:1], location, split="refshapes", loaded=loaded, settings=open_settings)
    other = replace(open_settings, points_per_side=2)
    with pytest.raises(StoreError, match=r"generator\.points_per_side 3, asked for 2"):
        cache_images(sources, location, split="refshapes", loaded=loaded, settings=other)
    with pytest.raises(StoreError, match="split 'refshapes', asked for 'refcoco'"):
        cache_images(sources, location, split="refcoco", loaded=loaded, settings=open_settings)
    assert CandidateStore(location).image_ids.tolist() == [1]

    cache_images(sources[1:2], location, split="refshapes", loaded=loaded, settings=other, overwrite=True)
    store = CandidateStore(location)
    assert store.image_ids.tolist() == [2]
    assert store.manifest.generator["points_per_side"] == 2


def test_cache_images__refuses_the_store_of_another_sam(
    refshapes_store: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    with pytest.raises(StoreError, match=f"sam_sha256 '{'0' * 64}', asked for '{loaded.sha256}'"):
        cache_images(sources, refshapes_store, split="refshapes", loaded=loaded, settings=open_settings)
    assert len(CandidateStore(refshapes_store)) == 12


def test_cache_images__precision_is_part_of_what_made_the_store(
    tmp_path: Path, sources: list[ImageSource], loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    def cache(location: Path, precision: str | None) -> CacheReport:
        return cache_images(
            sources[:1], location, split="refshapes", loaded=loaded, settings=open_settings, precision=precision
        )

    assert cache(tmp_path / "s.zarr", "bf16").num_added == 1
    assert CandidateStore(tmp_path / "s.zarr").manifest.generator["precision"] == "bf16"
    with pytest.raises(StoreError, match=r"generator\.precision 'bf16', asked for 'fp32'"):
        cache(tmp_path / "s.zarr", None)


def test_cache_images__compiles_when_there_is_something_to_do(
    tmp_path: Path,
    sources: list[ImageSource],
    loaded: LoadedSam,
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda function: calls.append("compile") or function)
    monkeypatch.setattr(MaskGenerator, "warm_up", lambda self, height, width: calls.append((height, width)) or 1.5)

    def cache() -> CacheReport:
        return cache_images(
            sources[:2],
            tmp_path / "s.zarr",
            split="refshapes",
            loaded=loaded,
            settings=open_settings,
            compile=True,
            on_compiled=calls.append,
        )

    assert cache().num_added == 2
    assert calls == ["compile", "compile", (96, 128), 1.5]
    assert cache().num_added == 0
    assert calls[4:] == ["compile", "compile"]  # wrapped, not run: torch compiles when a function is first called


def save_photograph(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6), (10, 20, 30)).save(path)


def test_cache_images__a_folder_of_photographs(
    tmp_path: Path, loaded: LoadedSam, open_settings: GeneratorSettings
) -> None:
    save_photograph(tmp_path / "photos" / "a.jpg")
    images = folder_images(tmp_path / "photos")
    cache_images(images, tmp_path / "s.zarr", split="photos", loaded=loaded, settings=open_settings)
    candidates = CandidateStore(tmp_path / "s.zarr")[image_id_of(Path("a.jpg"))]
    assert (candidates.height, candidates.width) == (6, 8)


@pytest.mark.parametrize("size", [(300, 1), (1, 300)])
def test_cache_images__too_thin_for_the_sam(
    tmp_path: Path, loaded: LoadedSam, open_settings: GeneratorSettings, size: tuple[int, int]
) -> None:
    save_photograph(tmp_path / "photos" / "a.png")
    Image.new("RGB", size).save(tmp_path / "photos" / "b.png")
    Image.new("RGB", (200, 1)).save(tmp_path / "photos" / "c.png")
    images = folder_images(tmp_path / "photos")
    report = cache_images(images, tmp_path / "s.zarr", split="photos", loaded=loaded, settings=open_settings)
    assert report.num_added == 2
    (reason,) = report.failed.values()
    assert reason.startswith("b.png: expected sides of at least a pixel when the longer has 128, found ")
    # Of a single row of pixels, or of one pixel, no 2 x 2 crops can be made, and nothing be cut.
    Image.new("RGB", (1, 1)).save(tmp_path / "photos" / "d.png")
    images = folder_images(tmp_path / "photos")
    report = cache_images(
        images, tmp_path / "t.zarr", split="photos", loaded=loaded, settings=replace(open_settings, crop_n_layers=1)
    )
    assert (report.num_added, len(report.failed)) == (1, 3)
    (reason,) = (reason for reason in report.failed.values() if reason.startswith("d.png"))
    assert reason.endswith("found none for one of layer 1 in 1 x 1 pixels (height, width); give fewer layers")


@pytest.mark.parametrize(("num_images", "batches"), [(1, [1, 1, 1]), (2, [2, 1, 1, 1])])
def test_cache_images__out_of_memory_at_one_prompt(
    num_images: int,
    batches: list[int],
    tmp_path: Path,
    sources: list[ImageSource],
    loaded: LoadedSam,
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    original = MaskGenerator.generate_batch
    at_once: list[tuple[int, int]] = []

    def generate(self: MaskGenerator, image_ids: Sequence[int], images: Sequence[np.ndarray]) -> object:
        at_once.append((len(image_ids), self.points_per_batch))
        if 2 in image_ids:
            self.points_per_batch = 1
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, image_ids, images)

    monkeypatch.setattr(MaskGenerator, "generate_batch", generate)
    monkeypatch.setattr(run, "images_at_once", lambda side, device, compiled: num_images)
    report = cache_images(sources, tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings)
    assert (report.num_added, list(report.failed)) == (2, [2])
    assert "expected memory on the device" in report.failed[2]
    assert at_once == [(number, 64) for number in batches]  # the images after it are not slower for it


def test_cache_images__out_of_memory_at_one_word(
    tmp_path: Path, sources: list[ImageSource], sam3_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words have a number at once of their own."""
    at_once: list[int] = []

    def generate(self: MaskGenerator, image_ids: Sequence[int], images: Sequence[np.ndarray]) -> object:
        at_once.append(self.points_per_batch)
        self.points_per_batch = 1
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(MaskGenerator, "generate_batch", generate)
    monkeypatch.setattr(run, "images_at_once", lambda side, device, compiled: 1)
    loaded = load_sam3(str(sam3_folder), torch.device("cpu"), with_tracker=False)
    asked = [replace(source, concepts=("man",)) for source in sources]
    report = cache_images(
        asked,
        tmp_path / "s.zarr",
        split="refshapes",
        loaded=loaded,
        settings=loaded.settings,
        concepts=ConceptSettings(mode="only"),
    )
    assert len(report.failed) == len(sources)
    assert at_once == [8] * len(sources)


def test_cache_images__no_compiler(
    tmp_path: Path,
    sources: list[ImageSource],
    loaded: LoadedSam,
    open_settings: GeneratorSettings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from torch._dynamo.exc import TorchDynamoException

    def fail(self: MaskGenerator, height: int, width: int) -> float:
        raise error

    monkeypatch.setattr(MaskGenerator, "warm_up", fail)

    def cache() -> CacheReport:
        return cache_images(
            sources[:1], tmp_path / "s.zarr", split="refshapes", loaded=loaded, settings=open_settings, compile=True
        )

    error: Exception = TorchDynamoException("\nNo working C++ compiler found\nin g++")
    with pytest.raises(
        InputError, match=r"^--compile: expected .*, found: No working C.. compiler found; leave it out$"
    ):
        cache()
    error = RuntimeError("device lost")
    with pytest.raises(RuntimeError, match="device lost"):
        cache()
