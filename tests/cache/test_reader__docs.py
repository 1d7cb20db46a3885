"""docs/store-format.md: its reader, which knows neither zarr nor semires, reads what our code writes."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from semires.cache.reader import CandidateStore
from semires.cache.rewriting import drop_images
from semires.cache.schema import Manifest
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter


@pytest.fixture(scope="module")
def documented_reader(fenced: Any) -> SimpleNamespace:
    """The page's functions; each block that follows the first goes on with its names."""
    names: dict[str, Any] = {}
    blocks = fenced("docs/store-format.md", "python", section="A reader in plain numpy")
    assert len(blocks) == 2
    assert len([line for line in blocks[0].text.splitlines() if line]) <= 40
    for _, block in blocks:
        assert not re.search(r"\b(zarr|semires|numcodecs)\b(?!\.json)", block)
        exec(block, names)
    return SimpleNamespace(**names)


@pytest.fixture(scope="module")
def location(tmp_path_factory: pytest.TempPathFactory, manifest: Manifest, make_candidates: Any) -> Path:
    """Parts of one and of several widths, of both codecs, an image twice, one without masks, `bits` of two chunks."""
    location = tmp_path_factory.mktemp("documented") / "x.zarr"
    of_one_width = [(1, 3, 40, 64), (2, 0, 40, 64), (3, 9, 30, 64)]
    of_several = [(4, 2, 6, 11), (5, 1, 5, 7), (6, 4, 50, 40)]
    with StoreWriter(location, manifest) as first, StoreWriter(location, manifest, codec="zstd-3") as second:
        for writer, images in ((first, of_one_width), (second, [*of_several, (1, 3, 40, 64)])):
            for image_id, num_masks, height, width in images:
                sizes = {"num_masks": num_masks, "height": height, "width": width}
                writer.add(make_candidates(image_id, seed=writer is second, **sizes))
    with StoreWriter(location, manifest, codec="blosc-zstd-1-shuffle") as writer:
        writer.add(make_candidates(7, num_masks=14, height=600, width=1000))  # 1,050,000 bytes
    with StoreWriter(location, manifest) as writer:
        writer.add(make_candidates(8, num_masks=0))
    return location


def test_reader__same_as_ours(location: Path, documented_reader: SimpleNamespace) -> None:
    found, store = documented_reader.read_store(location), CandidateStore(location)
    assert sorted(found) == store.image_ids.tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    for image_id, image in found.items():
        ours = store[image_id]
        expected = {
            "masks": ours.masks(),
            "area": ours.area,
            "box_xyxy": ours.boxes_xyxy,
            "predicted_iou": ours.predicted_iou,
            "stability_score": ours.stability_score,
            "point_xy": ours.points_xy,
        }
        assert image.keys() == expected.keys()
        for name, array in expected.items():
            assert (image[name].dtype, image[name].shape) == (array.dtype, array.shape), (image_id, name)
            np.testing.assert_array_equal(image[name], array, err_msg=f"{image_id} {name}")


def test_reader__views_and_what_is_left_after_dropping(
    tmp_path: Path, manifest: Manifest, make_candidates: Any, documented_reader: SimpleNamespace
) -> None:
    location = tmp_path / "x.zarr"
    with StoreWriter(location, manifest) as writer:
        for image_id in range(1, 20):
            writer.add(make_candidates(image_id, height=20, width=30))
    build_view(location, 13)
    drop_images(location, [4])
    assert sorted(documented_reader.read_store(location)) == [1, 2, 3, *range(5, 20)]
    (part,) = (location / "views" / "pil-nearest" / "13" / "parts").glob("*-*")
    masks = documented_reader.column(part / "bits")  # 54 of them, in two chunks
    offsets = documented_reader.column(part / "mask_offset")
    view = CandidateView(location, 13)
    for row, image_id in enumerate(documented_reader.column(part / "image_id").tolist()):
        np.testing.assert_array_equal(masks[offsets[row] : offsets[row + 1]], view[image_id])


def test_checksums__are_the_stored_ones(location: Path, documented_reader: SimpleNamespace) -> None:
    for path in [*location.glob("parts/*/zarr.json"), location / "parts" / "zarr.json", location / "zarr.json"]:
        attributes = json.loads(path.read_bytes())["attributes"]
        assert documented_reader.crc32(attributes) == attributes["crc32"]
    for path in location.glob("parts/*/area/c/0"):
        shard = path.read_bytes()
        assert documented_reader.crc32c(shard[-20:-4]) == shard[-4:]
        assert documented_reader.crc32c(shard[:-24]) == shard[-24:-20]
    for part in location.glob("parts/*-*"):
        columns = json.loads((part / "zarr.json").read_bytes())["attributes"]["columns"]
        for name, checksum in columns.items():
            assert documented_reader.zlib.crc32((part / name / "zarr.json").read_bytes()) == checksum
