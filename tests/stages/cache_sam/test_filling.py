import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch.distributed as dist
from numpy.typing import NDArray
from PIL import Image

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.cache_sam import commits, loading, workers
from semires.stages.cache_sam.filling import CacheReport, Generate, fill_store
from semires.stages.cache_sam.held import Held, look_at_store
from semires.stages.cache_sam.sources import ImageSource, UnfitImage
from semires.stages.cache_sam.workers import WorkerGroup
from semires.stages.processes.stopping import StopRequested

MANIFEST = Manifest(split="photos", sam="none", sam_sha256="0" * 64)


Pixels = NDArray[np.uint8]


def make(image_id: int, image: Pixels) -> Candidates:
    """Two masks, which depend on the pixels only."""
    masks = np.stack([image[:, :, 0] > 99, image[:, :, 1] > 99])
    return Candidates.from_masks(image_id, masks, np.ones(2), np.ones(2), np.full((2, 2), image.mean()))


def each(make_one: Callable[[int, Pixels], Candidates]) -> Generate:
    """What makes the candidates of several images from what makes those of one."""
    return lambda ids, images: [make_one(image_id, image) for image_id, image in zip(ids, images, strict=True)]


generate = each(make)


@pytest.fixture
def images(tmp_path: Path) -> list[ImageSource]:
    """Eight small images, with ids from 1."""
    (tmp_path / "photos").mkdir()
    found = []
    for number in range(1, 9):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8 + number, 3), dtype=np.uint8)
        path = tmp_path / "photos" / f"{number}.png"
        Image.fromarray(pixels).save(path)
        found.append(ImageSource(image_id=number, path=path))
    return found


def stored(location: Path) -> list[int]:
    return CandidateStore(location).image_ids.tolist()


def test_fill_store__bad_images_are_set_aside_and_tried_again(tmp_path: Path, images: list[ImageSource]) -> None:
    good = images[3].path.read_bytes()
    images[1].path.write_bytes(b"")
    images[3].path.write_bytes(good[:70])
    images[6].path.write_text("no image")
    told: list[int] = []
    report = fill_store(
        images, tmp_path / "s", MANIFEST, generate, on_set_aside=lambda source, reason: told.append(source.image_id)
    )
    assert (report.num_present, report.num_added, report.num_masks) == (0, 5, 10)
    assert told == list(report.failed) == [2, 4, 7]
    assert stored(tmp_path / "s") == [1, 3, 5, 6, 8]
    assert CandidateStore(tmp_path / "s").info().failed == report.failed
    assert report.failed[7].startswith("7.png: expected an image")

    images[3].path.write_bytes(good)
    again = fill_store(images, tmp_path / "s", MANIFEST, generate)
    assert (again.num_present, again.num_added, again.num_masks) == (5, 1, 2)
    assert list(again.failed) == [2, 7]
    assert stored(tmp_path / "s") == [1, 3, 4, 5, 6, 8]
    # Of a run over other images, these are no concern.
    assert fill_store(images[:1], tmp_path / "s", MANIFEST, generate).failed == {}


def test_fill_store__stale_images_are_made_anew(tmp_path: Path, images: list[ImageSource]) -> None:
    fill_store(images, tmp_path / "s", MANIFEST, generate, origin="folder-1")
    store = CandidateStore(tmp_path / "s")
    assert store.origins == {"folder-1"}
    before = {number: store[number].bits.tobytes() for number in store.image_ids.tolist()}
    images[2].path.write_bytes(images[4].path.read_bytes())
    held = look_at_store(images, tmp_path / "s", "folder-1")
    other = replace(MANIFEST, sam="other")
    with pytest.raises(StoreError, match="asked for 'other'"):
        fill_store(images, tmp_path / "s", other, generate, origin="folder-1", held=held)
    assert stored(tmp_path / "s") == list(range(1, 9))  # nothing is dropped for what is then refused
    report = fill_store(images, tmp_path / "s", MANIFEST, generate, origin="folder-1", held=held)
    assert (report.num_present, report.num_added) == (7, 1)
    store = CandidateStore(tmp_path / "s")
    assert [n for n in before if store[n].bits.tobytes() != before[n]] == [3]
    assert look_at_store(images, tmp_path / "s", "folder-1").stale == ()


def test_fill_store__a_foreign_store_is_emptied_when_asked(tmp_path: Path, images: list[ImageSource]) -> None:
    fill_store(images[:3], tmp_path / "s", MANIFEST, generate, origin="folder-1")
    held = Held(is_foreign=True)
    fill_store(images[4:6], tmp_path / "s", MANIFEST, generate, origin="folder-2", held=held, overwrite=True)
    assert stored(tmp_path / "s") == [5, 6]
    assert CandidateStore(tmp_path / "s").origins == {"folder-2"}


def test_fill_store__progress_counts_bad_images_too(tmp_path: Path, images: list[ImageSource]) -> None:
    images[2].path.write_bytes(b"")
    seen: list[tuple[int, int]] = []
    fill_store(images[:4], tmp_path / "s", MANIFEST, generate, on_progress=lambda *counts: seen.append(counts))
    assert seen == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]


def test_fill_store__the_same_image_twice(tmp_path: Path, images: list[ImageSource]) -> None:
    report = fill_store([*images[:2], images[0]], tmp_path / "s", MANIFEST, generate)
    assert report == CacheReport(num_present=0, num_added=2, num_masks=4)


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_fill_store__a_signal_commits_what_is_finished(
    tmp_path: Path, images: list[ImageSource], signum: int, code: int
) -> None:
    def until_asked_to_stop(image_id: int, image: Pixels) -> Candidates:
        if image_id == 5:
            os.kill(os.getpid(), signum)
            time.sleep(20)  # an image takes minutes on a CPU: it is given up
        return make(image_id, image)

    began = time.monotonic()
    with pytest.raises(StopRequested) as caught:
        fill_store(images, tmp_path / "s", MANIFEST, each(until_asked_to_stop))
    assert caught.value.exit_code == code
    assert time.monotonic() - began < 15
    assert stored(tmp_path / "s") == [1, 2, 3, 4]
    report = fill_store(images, tmp_path / "s", MANIFEST, generate)
    assert (report.num_present, report.num_added) == (4, 4)


def test_fill_store__a_signal_between_images(tmp_path: Path, images: list[ImageSource]) -> None:
    def stop_at_three(done: int, total: int) -> None:
        if done == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StopRequested):
        fill_store(images, tmp_path / "s", MANIFEST, generate, on_progress=stop_at_three)
    assert stored(tmp_path / "s") == [1, 2, 3]


def test_fill_store__an_error_of_the_generator(tmp_path: Path, images: list[ImageSource]) -> None:
    def fail(image_id: int, image: Pixels) -> Candidates:
        if image_id == 3:
            raise RuntimeError("device lost")
        return make(image_id, image)

    with pytest.raises(RuntimeError, match="device lost"):
        fill_store(images, tmp_path / "s", MANIFEST, each(fail))
    assert stored(tmp_path / "s") == [1, 2]


def test_fill_store__an_error_of_the_commit_thread(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: StoreWriter) -> None:
        if self.num_uncommitted:
            raise StoreError("no space left on the disk")

    with monkeypatch.context() as patch:
        patch.setattr(StoreWriter, "commit", full)
        with pytest.raises(StoreError, match="no space left"):
            fill_store(images, tmp_path / "s", MANIFEST, generate, images_per_part=1)
    assert fill_store(images, tmp_path / "s", MANIFEST, generate).num_added == 8


def fill_together(
    images: list[ImageSource], location: Path, num_workers: int, store: dist.Store, **arguments: object
) -> list[CacheReport]:
    """Workers in threads of this process, which share nothing but the two stores."""
    reports: list[CacheReport] = []

    def work(rank: int) -> None:
        group = WorkerGroup(store, rank, num_workers)
        reports.append(fill_store(images, location, MANIFEST, generate, group=group, images_per_part=2, **arguments))

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(num_workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return reports


def test_fill_store__workers_share_the_images(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    images[4].path.write_bytes(b"")
    fill_store(images[:2], tmp_path / "s", MANIFEST, generate)
    seen: list[tuple[int, int]] = []
    reports = fill_together(
        images, tmp_path / "s", 3, dist.HashStore(), on_progress=lambda *counts: seen.append(counts)
    )
    # Each reports what all did together.
    assert len(reports) == 3
    assert {(report.num_present, report.num_added, report.num_masks) for report in reports} == {(2, 5, 10)}
    assert all(list(report.failed) == [5] for report in reports)
    assert (seen[0][1], seen[-1]) == (6, (6, 6))
    store = CandidateStore(tmp_path / "s")
    assert store.info().num_images == sum(len(part.image_id) for part in store._open()._indices.values()) == 7


def test_fill_store__what_a_dead_worker_took_is_done_by_the_others(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    store = dist.HashStore()
    dead = WorkerGroup(store, 1, 2).positions(0, 8)
    assert [next(dead), next(dead), next(dead)] == [0, 1, 2]
    reports = fill_together(images, tmp_path / "s", 2, store)
    assert [report.num_added for report in reports] == [8, 8]
    assert stored(tmp_path / "s") == list(range(1, 9))


def test_fill_store__a_dead_worker_is_not_waited_for_for_ever(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    store = dist.HashStore()
    assert next(WorkerGroup(store, 1, 2).positions(0, 8)) == 0
    group = WorkerGroup(store, 0, 2, patience=0.3)
    assert fill_store(images, tmp_path / "s", MANIFEST, generate, group=group).num_added == 8


def test_fill_store__overwrite_empties_a_store_of_another_manifest_once(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    fill_store(images[:3], tmp_path / "s", replace(MANIFEST, sam="other"), generate)
    reports = fill_together(images[2:], tmp_path / "s", 2, dist.HashStore(), overwrite=True)
    assert [report.num_added for report in reports] == [6, 6]
    assert stored(tmp_path / "s") == [3, 4, 5, 6, 7, 8]
    assert CandidateStore(tmp_path / "s").manifest == MANIFEST
    # The workers were started again with the same arguments, their key-value store is a new one, and no variable of
    # torchrun's says so: nodes came or went.
    reports = fill_together(images[:1], tmp_path / "s", 2, dist.HashStore(), overwrite=True)
    assert stored(tmp_path / "s") == [1, 3, 4, 5, 6, 7, 8]


def test_fill_store__overwrite_after_rank_0_died_before_it(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_store(images[:3], tmp_path / "s", replace(MANIFEST, sam="other"), generate)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    fill_together(images[2:], tmp_path / "s", 2, dist.HashStore(), overwrite=True)
    assert stored(tmp_path / "s") == [3, 4, 5, 6, 7, 8]


def test_fill_store__overwrite_where_no_store_is(tmp_path: Path, images: list[ImageSource]) -> None:
    assert fill_store(images[:1], tmp_path / "s", MANIFEST, generate, overwrite=True).num_added == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(StoreError):
        fill_store(images[:1], tmp_path / "other", MANIFEST, generate, overwrite=True)


def test_fill_store__unfit_images_are_set_aside(tmp_path: Path, images: list[ImageSource]) -> None:
    def choose(image_id: int, image: Pixels) -> Candidates:
        if image_id == 2:
            raise UnfitImage("too thin")
        return make(image_id, image)

    told: list[str] = []
    report = fill_store(
        images, tmp_path / "s", MANIFEST, each(choose), on_set_aside=lambda source, reason: told.append(reason)
    )
    assert (report.num_added, report.failed) == (7, {2: "2.png: too thin"})
    assert told == ["too thin"]
    assert CandidateStore(tmp_path / "s").failed == report.failed


def test_fill_store__counts_the_masks_that_a_dead_worker_committed(tmp_path: Path, images: list[ImageSource]) -> None:
    fill_store(images[:1], tmp_path / "s", MANIFEST, generate)

    def also_by_another(image_id: int, image: Pixels) -> Candidates:
        if image_id == 2:  # committed by one that dies before it says so
            with StoreWriter(tmp_path / "s", MANIFEST) as writer:
                writer.add(make(3, np.zeros((8, 11, 3), np.uint8)))
        return make(image_id, image)

    report = fill_store(images[:3], tmp_path / "s", MANIFEST, each(also_by_another))
    assert (report.num_present, report.num_added, report.num_masks) == (1, 2, 4)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory where Linux shows it")
def test_fill_store__memory_is_flat(tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commits, "MAX_WAITING_BYTES", 4 * 2**20)
    many = [ImageSource(image_id=number, path=images[number % 8].path) for number in range(1000)]
    resident: list[int] = []

    def measure(image_id: int, image: Pixels) -> Candidates:
        if image_id in (100, 500, 999):
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            resident.append(pages * os.sysconf("SC_PAGE_SIZE"))
        # Packed, an image has 131 KB, all of them 131 MB.
        return Candidates(
            image_id=image_id,
            height=256,
            width=256,
            bits=np.zeros((16, 256, 32), np.uint8),
            area=np.zeros(16, np.int32),
            boxes_xyxy=np.zeros((16, 4), np.int32),
            predicted_iou=np.ones(16, np.float32),
            stability_score=np.ones(16, np.float32),
            points_xy=np.ones((16, 2), np.float32),
        )

    fill_store(many, tmp_path / "s", MANIFEST, each(measure), images_per_part=50)
    assert len(CandidateStore(tmp_path / "s")) == 1000
    assert max(resident) - resident[0] < 30_000_000


def noting(batches: list[list[int]]) -> Generate:
    """`generate`, which notes the ids of every batch; image 3 is unfit."""

    def generate_and_note(ids: Sequence[int], images: Sequence[Pixels]) -> list[Candidates]:
        batches.append(list(ids))
        if 3 in ids:
            raise UnfitImage("too thin")
        return generate(ids, images)

    return generate_and_note


def test_fill_store__several_images_at_once(tmp_path: Path, images: list[ImageSource]) -> None:
    images[4].path.write_bytes(b"")
    batches: list[list[int]] = []
    seen: list[tuple[int, int]] = []
    told: list[int] = []
    report = fill_store(
        images,
        tmp_path / "s",
        MANIFEST,
        noting(batches),
        images_at_once=4,
        on_progress=lambda *counts: seen.append(counts),
        on_set_aside=lambda source, reason: told.append(source.image_id),
    )
    # Whose the error is shows image by image; what cannot be decoded is not asked for.
    assert batches == [[1, 2, 3, 4], [1], [2], [3], [4], [6, 7, 8]]
    assert seen == [(done, 8) for done in range(9)]
    assert (report.num_added, told, list(report.failed)) == (6, [3, 5], [3, 5])
    assert report.failed[3] == "3.png: too thin"

    fill_store(images, tmp_path / "t", MANIFEST, noting([]))
    left, right = CandidateStore(tmp_path / "s"), CandidateStore(tmp_path / "t")
    assert stored(tmp_path / "s") == stored(tmp_path / "t") == [1, 2, 4, 6, 7, 8]
    assert left.failed == right.failed
    assert all(np.array_equal(left[image_id].bits, right[image_id].bits) for image_id in (1, 2, 4, 6, 7, 8))


def test_fill_store__an_error_costs_its_batch_nothing(tmp_path: Path, images: list[ImageSource]) -> None:
    def fail(image_id: int, image: Pixels) -> Candidates:
        if image_id == 6:
            raise RuntimeError("device lost")
        return make(image_id, image)

    with pytest.raises(RuntimeError, match="device lost"):
        fill_store(images, tmp_path / "s", MANIFEST, each(fail), images_at_once=8)
    assert stored(tmp_path / "s") == [1, 2, 3, 4, 5]


def test_fill_store__a_signal_gives_up_the_batch_in_hand(tmp_path: Path, images: list[ImageSource]) -> None:
    def until_asked_to_stop(image_id: int, image: Pixels) -> Candidates:
        if image_id == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(20)
        return make(image_id, image)

    began = time.monotonic()
    with pytest.raises(StopRequested):
        fill_store(images, tmp_path / "s", MANIFEST, each(until_asked_to_stop), images_at_once=3)
    assert time.monotonic() - began < 15
    assert stored(tmp_path / "s") == [1, 2, 3]


def test_fill_store__workers_share_the_last_images(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is busy has claimed no more than its share of what was left."""
    monkeypatch.setattr(workers, "_PAUSE", 0.01)
    many = [ImageSource(image_id=number, path=images[number % 8].path) for number in range(24)]
    store = dist.HashStore()
    begun, others_done = threading.Event(), threading.Event()
    taken: dict[int, list[int]] = {0: [], 1: []}

    def work(rank: int) -> None:
        def generate_and_note(ids: Sequence[int], pixels: Sequence[Pixels]) -> list[Candidates]:
            taken[rank].append(len(ids))
            if rank == 0:
                begun.set()
                assert others_done.wait(30)
            elif sum(taken[1]) == num_free:
                others_done.set()
            return generate(ids, pixels)

        if rank == 1:
            assert begun.wait(30)
        group = WorkerGroup(store, rank, 2)
        fill_store(many, tmp_path / "s", MANIFEST, generate_and_note, group=group, images_at_once=8)

    # Rank 0 claims until it holds half of what nobody has: 8 of 24, works on the first 4 of them, and is stuck.
    num_free = 16
    threads = [threading.Thread(target=work, args=(rank,)) for rank in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert others_done.is_set()
    assert stored(tmp_path / "s") == list(range(24))
    assert (taken[0], sum(taken[1])) == ([4, 4], 16)
    assert taken[1] == sorted(taken[1], reverse=True)


def test_fill_store__loading_device_and_commits_overlap(
    tmp_path: Path, images: list[ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the device has the second batch, the third is being decoded and the first being written."""
    decoded = {image.image_id: threading.Event() for image in images}
    writing, go_on = threading.Event(), threading.Event()
    decode, commit = loading.decode, StoreWriter.commit

    def note_decoded(source: ImageSource) -> loading.LoadedImage:
        decoded[source.image_id].set()
        return decode(source)

    def note_writing(self: StoreWriter) -> None:
        writing.set()
        assert go_on.wait(30)
        commit(self)

    def work(ids: Sequence[int], pixels: Sequence[Pixels]) -> list[Candidates]:
        if ids[0] == 3:
            assert decoded[5].wait(30)
            assert writing.wait(30)
            go_on.set()
        return generate(ids, pixels)

    monkeypatch.setattr(loading, "decode", note_decoded)
    monkeypatch.setattr(StoreWriter, "commit", note_writing)
    report = fill_store(images, tmp_path / "s", MANIFEST, work, images_at_once=2, images_per_part=2)
    assert report.num_added == 8
