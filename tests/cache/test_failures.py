from collections.abc import Callable
from pathlib import Path

import pytest

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.failures import read_failures, write_failures
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage
from semires.cache.writer import StoreWriter

MakeCandidates = Callable[..., Candidates]


def pieces(location: Path) -> list[str]:
    folder = location / "failed"
    return sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.exists() else []


def test_read_failures__the_last_word_counts(tmp_path: Path) -> None:
    storage = Storage.create(str(tmp_path / "s"), {})
    assert read_failures(storage) == {}
    write_failures(storage, {7: "a.jpg: cut off", -2: "b.jpg: no image"})
    write_failures(storage, {7: "a.jpg: zero bytes"})
    assert read_failures(storage) == {7: "a.jpg: zero bytes", -2: "b.jpg: no image"}


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({"image_id": ["1"], "reason": ["x"]}, "attribute image_id: expected a list of integers"),
        ({"image_id": [True], "reason": ["x"]}, "attribute image_id: expected a list of integers"),
        ({"reason": []}, "attribute image_id: expected a list of integers, found None"),
        ({"image_id": [1], "reason": "x"}, "attribute reason: expected a list of texts"),
        ({"image_id": [1, 2], "reason": ["x"]}, "attribute reason: expected 2 texts, found 1"),
    ],
)
def test_read_failures__of_another_form(tmp_path: Path, attributes: dict[str, object], text: str) -> None:
    storage = Storage.create(str(tmp_path / "s"), {})
    storage.write_group("failed/1", attributes)
    with pytest.raises(StoreError, match=f"failed/1: {text}"):
        read_failures(storage)


def test_read_failures__changed_since(tmp_path: Path) -> None:
    storage = Storage.create(str(tmp_path / "s"), {})
    write_failures(storage, {7: "a.jpg: cut off"})
    (metadata,) = (tmp_path / "s" / "failed").glob("*/zarr.json")
    metadata.write_text(metadata.read_text().replace("cut off", "cut out"))
    with pytest.raises(DamageError, match="attribute crc32: expected"):
        read_failures(storage)


def test_set_aside__listed_at_the_next_commit(
    tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates
) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(1))
        writer.set_aside(9, "i.jpg: cut off")
        assert writer.num_uncommitted == 2
        assert writer.failures() == {9: "i.jpg: cut off"}
        assert pieces(location) == []
        # The file may be replaced at any time: it is still one to do.
        assert writer.missing([1, 9]) == [9]
        writer.commit()
        assert writer.num_uncommitted == 0
        assert len(pieces(location)) == 1
    store = CandidateStore(location)
    assert store.failed == store.info().failed == {9: "i.jpg: cut off"}
    assert store.info().num_images == 1


def test_set_aside__tried_again_in_vain_adds_nothing(tmp_path: Path, manifest: Manifest) -> None:
    location = tmp_path / "s.zarr"
    for _ in range(3):
        with StoreWriter(location, manifest) as writer:
            writer.set_aside(9, "i.jpg: cut off")
    assert len(pieces(location)) == 1
    with StoreWriter(location, manifest) as writer:
        writer.set_aside(9, "i.jpg: no image")
    assert CandidateStore(location).failed == {9: "i.jpg: no image"}


def test_set_aside__stored_since(tmp_path: Path, manifest: Manifest, make_candidates: MakeCandidates) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.set_aside(9, "i.jpg: cut off")
        writer.set_aside(8, "h.jpg: cut off")
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(9))
        assert writer.failures() == {8: "h.jpg: cut off"}
    assert CandidateStore(location).failed == {8: "h.jpg: cut off"}


def test_set_aside__two_writers(tmp_path: Path, manifest: Manifest) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as first, StoreWriter(location, manifest) as second:
        first.set_aside(1, "a.jpg: cut off")
        second.set_aside(2, "b.jpg: cut off")
    assert CandidateStore(location).failed == {1: "a.jpg: cut off", 2: "b.jpg: cut off"}


def test_overwrite__empties_the_list(tmp_path: Path, manifest: Manifest) -> None:
    location = tmp_path / "s.zarr"
    with StoreWriter(location, manifest) as writer:
        writer.set_aside(1, "a.jpg: cut off")
    StoreWriter(location, manifest, overwrite=True).close()
    assert CandidateStore(location).failed == {}
