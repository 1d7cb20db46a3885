import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]
AssertSame = Callable[[Candidates, Candidates], None]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, make_candidates: MakeCandidates) -> Path:
    """Images 30, 10, 20 (without candidates) and 40 in two parts."""
    location = tmp_path_factory.mktemp("written") / "s.zarr"
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        writer.add(make_candidates(30))
        writer.add(make_candidates(10, num_masks=5, height=1, width=1))
        writer.add(make_candidates(20, num_masks=0, height=4, width=9))
        writer.add(make_candidates(40, num_masks=1, height=17, width=16))
    return location


@pytest.fixture
def location(written: Path, tmp_path: Path) -> Path:
    """A copy of the store, which a test may damage."""
    return Path(shutil.copytree(written, tmp_path / "s.zarr"))


def test_getitem__equals_what_was_added(
    location: Path, make_candidates: MakeCandidates, assert_same: AssertSame
) -> None:
    store = CandidateStore(location)
    assert_same(store[30], make_candidates(30))
    assert_same(store[10], make_candidates(10, num_masks=5, height=1, width=1))
    assert_same(store[20], make_candidates(20, num_masks=0, height=4, width=9))
    assert_same(store[40], make_candidates(40, num_masks=1, height=17, width=16))


def test_mapping__sorted_ids_and_counts(location: Path, manifest: Manifest) -> None:
    store = CandidateStore(str(location) + "/")
    assert store.manifest == manifest
    assert store.image_ids.dtype == np.int64
    assert store.image_ids.tolist() == [10, 20, 30, 40]
    assert len(store) == 4
    assert 20 in store
    assert np.int64(20) in store
    assert 25 not in store
    assert "20" not in store
    assert [store.num_masks(image_id) for image_id in (10, 20, 30, 40)] == [5, 0, 3, 1]


def test_getitem__missing_image(location: Path) -> None:
    store = CandidateStore(location)
    with pytest.raises(StoreError, match=r"expected image 11, found 4 other images; .* run the `semires cache-sam`"):
        store[11]
    with pytest.raises(StoreError, match="expected image 99"):
        store.num_masks(99)


def test_pickle__is_the_location(location: Path, make_candidates: MakeCandidates, assert_same: AssertSame) -> None:
    store = CandidateStore(location)
    assert len(store) == 4
    pickled = pickle.dumps(store)
    assert len(pickled) < 200 + len(str(location))
    assert_same(pickle.loads(pickled)[30], make_candidates(30))


def test_info__counts(location: Path, manifest: Manifest) -> None:
    info = CandidateStore(location).info()
    assert (info.num_parts, info.num_images, info.num_masks) == (2, 4, 9)
    assert (info.min_masks, info.median_masks, info.max_masks) == (0, 2.0, 5)
    assert info.masks_per_image.dtype == np.int64
    assert info.masks_per_image.tolist() == [5, 0, 3, 1]  # of images 10, 20, 30, 40
    assert info.num_bytes == sum(path.stat().st_size for path in location.rglob("*") if path.is_file())
    assert info.view_sizes == ()
    assert info.manifest == manifest


def test_info__empty_store(tmp_path: Path, manifest: Manifest) -> None:
    StoreWriter(tmp_path / "s.zarr", manifest).close()
    store = CandidateStore(tmp_path / "s.zarr")
    info = store.info()
    assert len(store) == 0
    assert 1 not in store
    assert (info.num_images, info.min_masks, info.median_masks, info.max_masks) == (0, 0, 0.0, 0)


def test_open__part_without_metadata_is_ignored(location: Path) -> None:
    first = min(path for path in (location / "parts").iterdir() if path.is_dir())
    (first / "zarr.json").unlink()
    assert CandidateStore(location).image_ids.tolist() == [20, 40]


def test_open__nothing_there(tmp_path: Path) -> None:
    store = CandidateStore(tmp_path / "none.zarr")  # making one reads nothing
    with pytest.raises(StoreError, match=r"none\.zarr: expected a candidate store, found nothing.*semires cache-sam"):
        len(store)
    assert not (tmp_path / "none.zarr").exists()


def test_open__not_a_store(tmp_path: Path) -> None:
    zarr.create_array(str(tmp_path / "array"), data=np.zeros(3), zarr_format=3)
    (tmp_path / "file").write_text("hello")
    zarr.create_group(str(tmp_path / "group"), attributes={"title": "weather"}, zarr_format=3)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "zarr.json").write_text("{")
    for name in ("array", "file", "group", "broken"):
        with pytest.raises(StoreError, match=rf"{name}: .*semires cache-sam"):
            len(CandidateStore(tmp_path / name))


def test_open__damaged_index(location: Path) -> None:
    first = min(path for path in (location / "parts").iterdir() if path.is_dir())
    metadata = json.loads((first / "zarr.json").read_text())
    metadata["attributes"]["masks_per_image"] = [3]
    (first / "zarr.json").write_text(json.dumps(metadata))
    with pytest.raises(StoreError, match="masks_per_image: expected 2 numbers, found 1; drop what is damaged with"):
        len(CandidateStore(location))


def test_getitem__flipped_bit_is_found(location: Path) -> None:
    first = min(path for path in (location / "parts").iterdir() if path.is_dir())
    shard = first / "bits" / "c" / "0"
    damaged = bytearray(shard.read_bytes())
    damaged[5] ^= 1
    shard.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"bits: expected an intact column.*semires cache verify STORE --repair"):
        CandidateStore(location)[30]


@pytest.mark.parametrize("column", ["bits", "box_xyxy"])
def test_getitem__lost_shard_is_no_empty_mask(location: Path, column: str) -> None:
    for shard in location.glob(f"parts/*/{column}/c/0*"):
        if shard.is_file():
            shard.unlink()
        else:
            (shard / "0").unlink()
    with pytest.raises(StoreError, match=f"{column}: expected an intact column.*is missing"):
        CandidateStore(location)[30]


@given(
    images=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 5), st.sampled_from([1, 7, 8, 9, 17])).flatmap(
            lambda shape: st.one_of(
                arrays(np.bool_, shape, elements=st.booleans()),
                st.just(np.zeros(shape, np.bool_)),
                st.just(np.ones(shape, np.bool_)),
            )
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=8, deadline=None)
def test_round_trip__any_masks(tmp_path_factory: pytest.TempPathFactory, images: list[np.ndarray]) -> None:
    location = tmp_path_factory.mktemp("store") / "s.zarr"
    manifest = Manifest(split="refshapes", sam="tiny", sam_sha256="ab")
    with StoreWriter(location, manifest, images_per_part=3) as writer:
        for image_id, masks in enumerate(images):
            count = len(masks)
            writer.add(
                Candidates.from_masks(image_id, masks, np.ones(count), np.zeros(count), np.full((count, 2), 0.5))
            )
    store = CandidateStore(location)
    assert store.image_ids.tolist() == list(range(len(images)))
    for image_id, masks in enumerate(images):
        np.testing.assert_array_equal(store[image_id].masks(), masks)


@pytest.mark.parametrize("image_ids", [[], [20], [40, 10, 20, 30], [10, 30, 10], [30, 20]])
def test_read__several_in_the_order_asked(location: Path, assert_same: AssertSame, image_ids: list[int]) -> None:
    found = CandidateStore(location).read(image_ids)
    assert [candidates.image_id for candidates in found] == image_ids
    one_by_one = CandidateStore(location)
    for candidates, image_id in zip(found, image_ids, strict=True):
        assert_same(candidates, one_by_one[image_id])


def test_read__one_missing(location: Path) -> None:
    with pytest.raises(StoreError, match="expected image 11, found 4 other images"):
        CandidateStore(location).read([10, 11])
