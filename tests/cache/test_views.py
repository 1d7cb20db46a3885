import json
import pickle
import shutil
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.cache import views
from semires.cache.bits import unpack_flat
from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import VIEWS, Manifest, sealed
from semires.cache.storage.hierarchy import Storage
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, make_candidates: MakeCandidates) -> Path:
    """Images 1 to 5 in three parts, image 2 without candidates."""
    location = tmp_path_factory.mktemp("written") / "s.zarr"
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        for image_id, num_masks in zip(range(1, 6), (3, 0, 7, 1, 2), strict=True):
            writer.add(make_candidates(image_id, num_masks=num_masks, height=11 + image_id, width=16))
    return location


@pytest.fixture
def location(written: Path, tmp_path: Path) -> Path:
    """A copy of the store, which a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "s.zarr"))


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def as_pil(masks: np.ndarray, size: int) -> np.ndarray:
    """Masks bool [M, H, W] at bool [M, size, size]."""
    small = [Image.fromarray(mask.astype(np.uint8)).resize((size, size), Image.Resampling.NEAREST) for mask in masks]
    return np.stack([np.asarray(image) > 0 for image in small])


@pytest.mark.parametrize("size", [1, 6, 8, 9, 20])
def test_getitem__equals_pils_nearest(location: Path, size: int) -> None:
    build_view(location, size)
    view, store = CandidateView(location, size), CandidateStore(location)
    assert len(view) == 5
    for image_id in store.image_ids:
        packed = view[image_id]
        assert packed.dtype == np.uint8
        assert packed.shape == (store.num_masks(image_id), -(-size * size // 8))
        masks = store[image_id].masks()
        if len(masks):
            np.testing.assert_array_equal(unpack_flat(packed, height=size, width=size), as_pil(masks, size))


def test_build_view__shards_smaller_than_a_part(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_view(location, 8)
    whole = {image_id: CandidateView(location, 8)[image_id] for image_id in range(1, 6)}
    shutil.rmtree(location / "views")
    monkeypatch.setattr(views, "_MASKS_PER_CHUNK", 2)
    monkeypatch.setattr(views, "_BYTES_PER_SHARD", 4 * 8)
    build_view(location, 8)
    assert len(list(location.glob(f"{VIEWS}/8/parts/*/bits/c/*"))) == 1 + 2 + 1
    for image_id, bits in whole.items():
        np.testing.assert_array_equal(CandidateView(location, 8)[image_id], bits)


def test_build_view__progress_and_growth(location: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    told: list[tuple[int, int]] = []
    build_view(location, 8, lambda done, total: told.append((done, total)))
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(6))
    before = snapshot(location / VIEWS / "8")
    told.clear()
    build_view(location, 8, lambda done, total: told.append((done, total)))
    assert told == [(5, 6), (6, 6)]
    after = snapshot(location / VIEWS / "8")
    assert before.items() < after.items()
    assert 6 in CandidateView(location, 8)
    assert CandidateStore(location).info().view_sizes == (8,)


def test_build_view__drops_views_of_deleted_parts(location: Path) -> None:
    build_view(location, 8)
    first = min(path for path in (location / "parts").iterdir() if path.is_dir())
    shutil.rmtree(first)
    build_view(location, 8)
    view = CandidateView(location, 8)
    assert not (location / VIEWS / "8" / "parts" / first.name).exists()
    assert [image_id for image_id in range(7) if image_id in view] == [3, 4, 5]


def test_build_view__resumes_after_interruption(location: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_view(location, 8)
    complete = snapshot(location / VIEWS / "8")
    shutil.rmtree(location / "views")
    write_group, calls = Storage.write_group, []

    def stop_at_second_part(storage: Storage, path: str, attributes: dict[str, object]) -> None:
        calls.append(path)
        if len(calls) == 3:  # the view itself, its first part, its second part
            raise KeyboardInterrupt
        write_group(storage, path, attributes)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_group", stop_at_second_part)
        with pytest.raises(KeyboardInterrupt):
            build_view(location, 8)
    view = CandidateView(location, 8)
    assert [image_id for image_id in range(7) if image_id in view] == [1, 2]
    build_view(location, 8)
    assert snapshot(location / VIEWS / "8") == complete


def test_build_view__attributes_that_contradict_the_columns(location: Path) -> None:
    first = min(path for path in (location / "parts").iterdir() if path.is_dir())
    metadata = json.loads((first / "zarr.json").read_text())
    metadata["attributes"] = sealed(metadata["attributes"] | {"image_id": [1, 77]})
    (first / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="image_id: expected the same numbers as in the part's attributes"):
        build_view(location, 8)


def test_build_view__bad_arguments(location: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="view size: expected at least 1 pixel, found 0"):
        build_view(location, 0)
    with pytest.raises(StoreError, match=r"none\.zarr: expected a candidate store, found nothing"):
        build_view(tmp_path / "none.zarr", 8)
    assert not (tmp_path / "none.zarr").exists()
    Storage.create(str(tmp_path / "group"), {"title": "weather"})
    with pytest.raises(StoreError, match="group: manifest key schema_version"):
        build_view(tmp_path / "group", 8)


def test_view__missing(location: Path, tmp_path: Path) -> None:
    build_view(location, 8)
    with pytest.raises(StoreError, match=r"expected a view of size 16, found 8; run `semires cache view .* --size 16`"):
        len(CandidateView(location, 16))
    with pytest.raises(StoreError, match="expected image 9, found 5 other images"):
        CandidateView(location, 8)[9]
    with pytest.raises(StoreError, match="found nothing"):
        len(CandidateView(tmp_path / "none.zarr", 8))


def test_view__pickles_as_location_and_size(location: Path) -> None:
    build_view(location, 8)
    view = CandidateView(location, 8)
    before = view[3]
    pickled = pickle.dumps(view)
    assert len(pickled) < 200 + len(str(location))
    np.testing.assert_array_equal(pickle.loads(pickled)[3], before)


def test_view__needs_only_itself(location: Path) -> None:
    build_view(location, 8)
    shutil.rmtree(location / "parts")
    assert len(CandidateView(location, 8)[3]) == 7


def test_view__lost_shard_is_no_empty_mask(location: Path) -> None:
    build_view(location, 8)
    for shard in location.glob(f"{VIEWS}/8/parts/*/bits/c/0/0"):
        shard.unlink()
    with pytest.raises(StoreError, match=r"bits: expected an intact column.*is missing"):
        CandidateView(location, 8)[3]


def test_view__foreign_attributes(location: Path) -> None:
    build_view(location, 8)
    metadata = json.loads((location / VIEWS / "8" / "zarr.json").read_text())
    metadata["attributes"]["size"] = 9
    (location / VIEWS / "8" / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match=r"cache verify .* --repair"):
        len(CandidateView(location, 8))


def test_view_read__several_in_the_order_asked(location: Path) -> None:
    build_view(location, 8)
    one_by_one = CandidateView(location, 8)
    for image_ids in ([], [2], [5, 1, 2, 3, 4], [3, 1, 3]):
        found = CandidateView(location, 8).read(image_ids)
        assert len(found) == len(image_ids)
        for bits, image_id in zip(found, image_ids, strict=True):
            np.testing.assert_array_equal(bits, one_by_one[image_id])
    with pytest.raises(StoreError, match="expected image 9, found 5 other images"):
        one_by_one.read([1, 9])


def test_view__other_metadata_than_was_written(location: Path) -> None:
    build_view(location, 8)
    for document in location.glob(f"{VIEWS}/8/parts/*/bits/zarr.json"):
        document.write_text(document.read_text().replace("uint8", "int8"))
    with pytest.raises(StoreError, match=rf"{VIEWS}/8/parts/.*bits: expected an intact column.*with checksum"):
        CandidateView(location, 8)[3]


@pytest.fixture
def outdated(location: Path, write_outdated_view: Callable[[Path, int], None]) -> Path:
    """The store with an outdated view of size 6, some of whose masks differ from what they would be now."""
    write_outdated_view(location, 6)
    return location


def is_new(location: Path, image_ids: Iterable[int] = range(1, 6)) -> bool:
    """Whether the view of 6 holds each image as PIL resizes it."""
    view, store = CandidateView(location, 6), CandidateStore(location)
    return all(
        np.array_equal(unpack_flat(view[n], height=6, width=6), as_pil(store[n].masks(), 6))
        for n in image_ids
        if store.num_masks(n)
    )


def test_outdated_view__refused_with_the_command_that_rebuilds_it(outdated: Path) -> None:
    message = rf"size 6 resampled as the masks are \(pil-nearest\).*run `semires cache view {outdated} --size 6`"
    with pytest.raises(StoreError, match=message) as caught:
        CandidateView(outdated, 6)[1]
    assert "\n" not in str(caught.value)
    assert CandidateStore(outdated).info().view_sizes == ()


def test_outdated_view__rebuilt_and_said(outdated: Path) -> None:
    shard = next(outdated.glob("views/6/parts/*/bits/c/0/0")).read_bytes()
    build_view(outdated, 8)  # another size leaves it alone
    assert next(outdated.glob("views/6/parts/*/bits/c/0/0")).read_bytes() == shard
    told: list[object] = []
    build_view(outdated, 6, lambda done, total: told.append((done, total)), on_outdated=told.append)
    assert told == [f"{outdated}/views/6", (0, 5), (2, 5), (4, 5), (5, 5)]
    assert not (outdated / "views" / "6").exists()
    assert is_new(outdated)
    attributes = json.loads((outdated / VIEWS / "6" / "zarr.json").read_text())["attributes"]
    assert attributes == {"schema_version": 1, "size": 6, "resampling": "pil-nearest"}
    told.clear()
    build_view(outdated, 6, on_outdated=told.append)
    assert told == []


def test_outdated_view__killed_while_it_is_deleted(outdated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rmtree = shutil.rmtree

    def stop_after_a_part(_: Path) -> None:
        rmtree(next(outdated.glob("views/6/parts/*-*")))
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", stop_after_a_part)
        with pytest.raises(KeyboardInterrupt):
            build_view(outdated, 6)
    with pytest.raises(StoreError, match=f"run `semires cache view {outdated} --size 6` to rebuild it"):
        CandidateView(outdated, 6)[1]
    build_view(outdated, 6)
    assert not (outdated / "views" / "6").exists()
    assert is_new(outdated)


@pytest.mark.parametrize("num_groups", range(1, 4))  # the view itself, its first part, its second part
def test_outdated_view__killed_while_it_is_rebuilt(
    outdated: Path, monkeypatch: pytest.MonkeyPatch, num_groups: int
) -> None:
    write_group, written = Storage.write_group, []

    def stop_after(storage: Storage, path: str, attributes: dict[str, object]) -> None:
        if len(written) == num_groups:
            raise KeyboardInterrupt
        written.append(path)
        write_group(storage, path, attributes)

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_group", stop_after)
        with pytest.raises(KeyboardInterrupt):
            build_view(outdated, 6)
    there = [n for n in range(1, 6) if n in CandidateView(outdated, 6)]
    assert there == list(range(1, 2 * num_groups - 1))
    assert is_new(outdated, there)
    build_view(outdated, 6)
    assert is_new(outdated)


def test_outdated_view__rebuilt_by_another_meanwhile(outdated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other is through with everything after this one has seen the outdated view and before it deletes it."""
    delete_group = Storage.delete_group
    deleted: list[str] = []

    def delete_late(storage: Storage, path: str) -> None:
        deleted.append(path)
        if len(deleted) == 1:
            build_view(outdated, 6)
            assert is_new(outdated)
        delete_group(storage, path)

    monkeypatch.setattr(Storage, "delete_group", delete_late)
    told: list[tuple[int, int]] = []
    build_view(outdated, 6, lambda done, total: told.append((done, total)))
    assert deleted == ["views/6", "views/6"]
    assert told == [(5, 5)]
    assert is_new(outdated)


def test_outdated_view__rebuilt_by_several_at_once(outdated: Path) -> None:
    start = threading.Barrier(4)

    def rebuild(_: int) -> None:
        start.wait()
        build_view(outdated, 6)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rebuild, range(4)))
    assert not (outdated / "views" / "6").exists()
    assert is_new(outdated)


def test_build_view__attributes_of_another_view(location: Path) -> None:
    """Nobody knows what such parts hold: they are not gone on with."""
    build_view(location, 8)
    path = location / VIEWS / "8" / "zarr.json"
    path.write_text(path.read_text().replace("pil-nearest", "box"))
    before = snapshot(location)
    with pytest.raises(StoreError, match=r"expected attributes .*'pil-nearest'.*'box'.*cache verify .* --repair"):
        build_view(location, 8)
    assert snapshot(location) == before
