import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semires.cache import parts
from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.verification import verify_store
from semires.cache.views import build_view
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]


def part_names(location: Path) -> list[str]:
    return sorted(path.name for path in (location / "parts").iterdir() if path.is_dir())


def test_add__commits_by_images(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest, images_per_part=2) as writer:
        for image_id in range(5):
            writer.add(make_candidates(image_id))
        assert len(CandidateStore(location)) == 4
    assert len(CandidateStore(location)) == 5
    assert len(part_names(location)) == 3


def test_add__commits_by_bytes(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    # One image takes 3 masks x 6 rows x 2 bytes = 36 bytes.
    with StoreWriter(location, manifest, bytes_per_part=72) as writer:
        for image_id in range(3):
            writer.add(make_candidates(image_id))
        assert CandidateStore(location).image_ids.tolist() == [0, 1]


def test_add__same_image_again(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(3))
        with pytest.raises(StoreError, match="found image 3 again"):
            writer.add(make_candidates(3))
    with StoreWriter(location, manifest) as writer, pytest.raises(StoreError, match="found image 3 again"):
        writer.add(make_candidates(3))


def test_exit__finished_images_survive_an_error(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates
) -> None:
    location = tmp_path / "s.zarr"

    def cache_until_it_fails() -> None:
        with StoreWriter(location, manifest) as writer:
            writer.add(make_candidates(1))
            raise RuntimeError("GPU gone")

    with pytest.raises(RuntimeError, match="GPU gone"):
        cache_until_it_fails()
    assert CandidateStore(location).image_ids.tolist() == [1]


def test_missing__resumes_in_order(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        assert writer.missing([9, 4, 7]) == [9, 4, 7]
        writer.add(make_candidates(4))
        assert writer.missing([9, 4, 7]) == [9, 7]
    with StoreWriter(location, manifest) as writer:
        assert writer.missing([9, 4, 7]) == [9, 7]
        writer.add(make_candidates(9))
        writer.add(make_candidates(7))
    with StoreWriter(location, manifest) as writer:
        assert writer.missing([9, 4, 7]) == []
    assert len(part_names(location)) == 2


def test_writers__two_in_one_store(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as first, StoreWriter(location, manifest) as second:
        first.add(make_candidates(1, seed=1))
        second.add(make_candidates(2))
        second.add(make_candidates(1, seed=2))
        first.commit()
        assert second.missing([1, 2, 3]) == [3]
    store = CandidateStore(location)
    assert store.image_ids.tolist() == [1, 2]
    # Both hold image 1: the first part by name counts, here the one committed first.
    np.testing.assert_array_equal(store[1].bits, make_candidates(1, seed=1).bits)
    assert store.info().num_masks == 6


def test_init__other_manifest(tmp_path: Path, manifest: Manifest) -> None:
    StoreWriter(tmp_path / "s.zarr", manifest).close()
    with pytest.raises(StoreError, match="sam 'tiny', asked for 'vit_b'"):
        StoreWriter(tmp_path / "s.zarr", dataclasses.replace(manifest, sam="vit_b"))


def test_init__overwrite(
    tmp_path: Path,
    manifest: Manifest,
    make_candidates: MakeCandidates,
    write_outdated_view: Callable[[Path, int], None],
) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(1))
    build_view(location, 4)
    write_outdated_view(location, 5)
    other = dataclasses.replace(manifest, sam="vit_b")
    with StoreWriter(location, other, overwrite=True) as writer:
        assert writer.missing([1]) == [1]
        assert [path for path in location.rglob("views/*") if path.is_dir()] == []
        writer.add(make_candidates(2))
    store = CandidateStore(location)
    assert store.manifest == other
    assert store.image_ids.tolist() == [2]


@pytest.mark.parametrize("overwrite", [False, True])
def test_init__foreign_files_stay(tmp_path: Path, manifest: Manifest, overwrite: bool) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(StoreError, match="found other files; choose another location"):
        StoreWriter(tmp_path, manifest, overwrite=overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(("overwrite", "message"), [(False, "schema_version"), (True, "found another Zarr group")])
def test_init__foreign_group_stays(tmp_path: Path, manifest: Manifest, overwrite: bool, message: str) -> None:
    Storage.create(str(tmp_path / "g"), {"title": "weather"})
    with pytest.raises(StoreError, match=message):
        StoreWriter(tmp_path / "g", manifest, overwrite=overwrite)
    assert Storage(str(tmp_path / "g")).attributes == {"title": "weather"}


def test_init__bad_limits(tmp_path: Path, manifest: Manifest) -> None:
    with pytest.raises(ValueError, match="at least 1 image"):
        StoreWriter(tmp_path / "s.zarr", manifest, images_per_part=0)


def test_commit__interrupted_leaves_no_part(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    location = tmp_path / "s.zarr"
    writer = StoreWriter(location, manifest)
    writer.add(make_candidates(1))
    write_column = Storage.write_column

    def stop_at_area(storage: Storage, path: str, *args: object, **kwargs: object) -> None:
        if path.endswith("area"):
            raise KeyboardInterrupt
        write_column(storage, path, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write_column", stop_at_area)
        with pytest.raises(KeyboardInterrupt):
            writer.commit()
    assert part_names(location) == []
    assert len(CandidateStore(location)) == 0
    # The buffer is still there: the same writer, or the next one, goes on.
    writer.close()
    assert CandidateStore(location).image_ids.tolist() == [1]


def test_commit__interrupted_as_the_part_is_finished(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C right behind the last write: what goes on with the buffer does not store its images twice."""
    location = tmp_path / "s.zarr"
    write_group = Storage.write_group

    def write_and_stop(storage: Storage, path: str, attributes: dict[str, object]) -> None:
        write_group(storage, path, attributes)
        if path.startswith("parts/"):
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(Storage, "write_group", write_and_stop)

    def cache_until_stopped() -> None:
        with StoreWriter(location, manifest, images_per_part=2) as writer:
            writer.add(make_candidates(1))
            writer.add(make_candidates(2))

    with pytest.raises(KeyboardInterrupt):
        cache_until_stopped()
    assert len(part_names(location)) == 1
    found = verify_store(location)
    assert (found.num_images, found.duplicates, found.damaged) == (2, {}, ())


def test_init__names_the_store_and_the_option(tmp_path: Path, manifest: Manifest) -> None:
    StoreWriter(tmp_path / "s.zarr", manifest).close()
    with pytest.raises(StoreError, match=r"s\.zarr: store was made with split .*`semires cache-sam --overwrite`"):
        StoreWriter(tmp_path / "s.zarr", dataclasses.replace(manifest, split="refcoco"))


def test_new_part_name__sorts_by_time() -> None:
    names = [parts.new_part_name() for _ in range(20)]
    stamps = [name.split("-")[0] for name in names]
    assert stamps == sorted(stamps)
    assert len(set(names)) == 20
