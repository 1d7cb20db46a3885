import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr

from semires.cache.candidates import Candidates
from semires.cache.errors import DamageError, StoreError
from semires.cache.files import FileRecord, FileRecords
from semires.cache.parts import (
    PartIndex,
    check_columns,
    named_at,
    new_part_name,
    num_native_bytes,
    read_indices,
    write_part,
)
from semires.cache.storage.hierarchy import Storage

MakeCandidates = Callable[..., Candidates]


@pytest.fixture
def images(make_candidates: MakeCandidates) -> list[Candidates]:
    return [make_candidates(4, num_masks=2), make_candidates(9, num_masks=0), make_candidates(2, height=5, width=16)]


def test_write_part__columns_are_the_documented_schema(tmp_path: Path, images: list[Candidates]) -> None:
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    write_part(storage, "p", images)
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")["parts/p"]
    assert isinstance(group, zarr.Group)
    num_bytes = 2 * 6 * 2 + 0 + 3 * 5 * 2
    shapes: dict[str, tuple[tuple[int, ...], str]] = {
        "image_id": ((3,), "int64"),
        "size": ((3, 2), "int32"),
        "mask_offset": ((4,), "int64"),
        "byte_offset": ((4,), "int64"),
        "bits": ((num_bytes,), "uint8"),
        "area": ((5,), "int32"),
        "box_xyxy": ((5, 4), "int32"),
        "predicted_iou": ((5,), "float32"),
        "stability_score": ((5,), "float32"),
        "point_xy": ((5, 2), "float32"),
    }
    arrays = dict(group.arrays())
    assert {name: (array.shape, str(array.dtype)) for name, array in arrays.items()} == shapes
    assert np.asarray(arrays["image_id"]).tolist() == [4, 9, 2]
    assert np.asarray(arrays["size"]).tolist() == [[6, 11], [6, 11], [5, 16]]
    assert np.asarray(arrays["mask_offset"]).tolist() == [0, 2, 2, 5]
    assert np.asarray(arrays["byte_offset"]).tolist() == [0, 24, 24, num_bytes]
    assert sum(num_native_bytes(image) for image in images) == num_bytes
    for array in arrays.values():
        assert array.shards is not None
        codecs = json.dumps(array.metadata.to_dict()["codecs"], default=str)
        assert "zstd" in codecs
        assert codecs.count("crc32c") == 2  # of the chunks and of the shard's index


def test_write_part__only_empty_images(tmp_path: Path, make_candidates: MakeCandidates) -> None:
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    index = write_part(storage, "p", [make_candidates(1, num_masks=0)])
    assert index.num_masks == 0
    check_columns(storage, "p", read_indices(storage)["p"])


def test_read_indices__skips_and_sorts(tmp_path: Path, images: list[Candidates]) -> None:
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    for name in ("c", "a", "b"):
        write_part(storage, name, images)
    assert list(read_indices(storage)) == ["a", "b", "c"]
    assert list(read_indices(storage, skip={"a", "c"})) == ["b"]
    assert read_indices(storage)["a"].mask_offset.tolist() == [0, 2, 2, 5]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": [1.5, 2, 3]}, "attribute image_id: expected a list of integers"),
        ({"image_id": "1"}, "attribute image_id: expected a list of integers, found '1'"),
        ({"image_id": [[1], [2], [3]]}, "attribute image_id: expected a list of integers"),
        ({"height": [0, 1, 1]}, "attribute height: expected integers from 1, found 0"),
        ({"masks_per_image": [1, 2, -3]}, "attribute masks_per_image: expected integers from 0, found -3"),
        ({"width": [5]}, "attribute width: expected 3 numbers, found 1"),
        ({"width": None}, "attribute width: expected a list of integers, found None"),
        ({"num_images": 4}, "attribute num_images: expected 3, found 4"),
        ({"num_masks": None}, "attribute num_masks: expected 5, found None"),
    ],
)
def test_from_attributes__wrong(images: list[Candidates], change: dict[str, Any], message: str) -> None:
    attributes = PartIndex.of(images).to_attributes()
    assert PartIndex.from_attributes("p", attributes).num_masks == 5
    with pytest.raises(StoreError, match=f"p: {message}"):
        PartIndex.from_attributes("p", attributes | change)


def test_named_at__when_a_part_was_begun() -> None:
    begun = named_at(new_part_name())
    assert begun is not None
    assert abs(datetime.now(UTC) - begun) < timedelta(minutes=1)
    assert named_at("by-hand") is None


def test_from_attributes__changed_number(images: list[Candidates]) -> None:
    attributes = PartIndex.of(images).to_attributes()
    for change in ({"image_id": [4, 9, 3]}, {"height": [7, 6, 5]}, {"columns": {"bits": 1}}, {"crc32": 0}, {"more": 1}):
        with pytest.raises(DamageError, match=r"p: attribute crc32: expected \d+, found \d+"):
            PartIndex.from_attributes("p", attributes | change)


def test_open_column__other_metadata_than_was_written(tmp_path: Path, images: list[Candidates]) -> None:
    """Zarr itself would read other numbers: as unsigned, scores below zero."""
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    index = write_part(storage, "p", images)
    document = tmp_path / "s.zarr" / "parts" / "p" / "area" / "zarr.json"
    document.write_text(document.read_text().replace("int32", "uint32"))
    assert storage.open_column("parts/p/area").read().dtype == np.uint32
    with pytest.raises(DamageError, match=r"parts/p/area: .*with checksum"):
        storage.open_column("parts/p/area", index.columns["area"])


RECORD = FileRecord(num_bytes=12, mtime_ns=-5, sha256="ab" * 32)
FILES = FileRecords.of([RECORD] * 3).to_json()


def test_write_part__origin_and_files(tmp_path: Path, images: list[Candidates]) -> None:
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    write_part(storage, "p", images, origin="folder-1", files=[RECORD, None, RECORD])
    write_part(storage, "q", images, files=[None, None, None])
    indices = read_indices(storage)
    assert indices["p"].origin == "folder-1"
    assert [indices["p"].file_of(row) for row in range(3)] == [RECORD, None, RECORD]
    assert (indices["q"].origin, indices["q"].files, indices["q"].file_of(1)) == ("", None, None)
    # What earlier releases wrote, to the byte: they know these keys only, and are read without others.
    known = {"num_images", "num_masks", "image_id", "height", "width", "masks_per_image", "columns", "crc32"}
    assert indices["q"].to_attributes().keys() == known


def test_write_part__words_of_files(tmp_path: Path, images: list[Candidates]) -> None:
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    asked = replace(RECORD, words="0123456789abcdef")
    write_part(storage, "p", images, files=[asked, RECORD, None])
    files = read_indices(storage)["p"].files
    assert files is not None
    assert [files[row] for row in range(3)] == [asked, RECORD, None]
    assert FILES.keys() == {"num_bytes", "mtime_ns", "sha256"}  # no word more where there are none


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"origin": 1}, "attribute origin: expected a text of at most 64 characters, found 1"),
        ({"origin": "x" * 65}, "attribute origin: expected a text"),
        ({"files": []}, "attribute files: expected records of image files, found expected num_bytes, mtime_ns"),
        ({"files": FILES | {"sha256": "ab" * 95 + "AB"}}, "attribute files: expected records"),
        ({"files": FILES | {"sha256": "ab" * 64}}, "attribute files: expected records"),
        ({"files": FILES | {"num_bytes": [1, 2, -2]}}, "attribute files: expected records"),
        ({"files": FILES | {"num_bytes": [1, 2]}}, "attribute files: expected records"),
        ({"files": FILES | {"mtime_ns": [1, 2, 2.5]}}, "attribute files: expected records"),
        ({"files": FILES | {"mtime_ns": [1, 2, 2**70]}}, "attribute files: expected records"),
        ({"files": FILES | {"mtime_ns": None}}, "attribute files: expected records"),
        ({"files": FILES | {"words": "ab" * 23}}, "attribute files: expected records"),
        ({"files": FILES | {"words": "xy" * 24}}, "attribute files: expected records"),
        ({"files": FILES | {"words": None}}, "attribute files: expected records"),
    ],
)
def test_from_attributes__wrong_origin_or_files(images: list[Candidates], change: dict[str, Any], message: str) -> None:
    attributes = PartIndex.of(images, [RECORD] * 3, "split").to_attributes()
    with pytest.raises(StoreError, match=f"p: {message}"):
        PartIndex.from_attributes("p", attributes | change)


def test_read_indices__a_part_that_is_replaced_meanwhile(
    tmp_path: Path, images: list[Candidates], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was listed, and is gone when its index is read; what came in its place was not listed."""
    storage = Storage.create(str(tmp_path / "s.zarr"), {})
    write_part(storage, "a", images[:1])
    write_part(storage, "b", images[1:])
    original = Storage.group_attributes

    def read(self: Storage, paths: list[str]) -> list[dict[str, Any] | None]:
        monkeypatch.undo()
        write_part(storage, "c", images)
        for name in ("a", "b"):
            storage.delete_group(f"parts/{name}")
        return original(self, paths)

    monkeypatch.setattr(Storage, "group_attributes", read)
    assert list(read_indices(storage)) == ["c"]
