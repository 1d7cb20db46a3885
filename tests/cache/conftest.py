from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semires.cache.bits import pack_flat
from semires.cache.candidates import Candidates
from semires.cache.parts import read_indices
from semires.cache.reader import CandidateStore
from semires.cache.schema import Manifest
from semires.cache.storage.hierarchy import Storage

MakeCandidates = Callable[..., Candidates]


@pytest.fixture(scope="session")
def manifest() -> Manifest:
    return Manifest(split="refshapes", sam="tiny", sam_sha256="ab" * 32, generator={"points_per_side": 8, "iou": 0.88})


@pytest.fixture(scope="session")
def make_candidates() -> MakeCandidates:
    """Random candidates that depend on nothing but the arguments."""

    def make(image_id: int, *, num_masks: int = 3, height: int = 6, width: int = 11, seed: int = 0) -> Candidates:
        rng = np.random.default_rng([image_id, seed])
        return Candidates.from_masks(
            image_id,
            rng.random((num_masks, height, width)) < 0.4,
            rng.random(num_masks),
            rng.random(num_masks),
            rng.random((num_masks, 2)) * width,
        )

    return make


@pytest.fixture(scope="session")
def write_outdated_view() -> Callable[[Path, int], None]:
    """Writes the view of a size as it was before resampling rules had names: another place, attributes and pixels."""

    def write(location: Path, size: int) -> None:
        storage, root = Storage(str(location), writable=True), f"views/{size}"
        storage.write_group(root, {"schema_version": 1, "size": size})
        store = CandidateStore(location)
        for name, index in read_indices(storage).items():
            images = [store[image_id].masks() for image_id in index.image_id.tolist()]
            rows, columns = (
                [(2 * np.arange(size) + 1) * side // (2 * size) for side in sides]
                for sides in (index.height, index.width)
            )
            small = [masks[:, rows[n]][:, :, columns[n]] for n, masks in enumerate(images)]
            path = f"{root}/parts/{name}"
            data = {
                "image_id": index.image_id,
                "mask_offset": index.mask_offset,
                "bits": pack_flat(np.concatenate(small)),
            }
            for column, array in data.items():
                storage.write_column(f"{path}/{column}", array, rows_per_chunk=32)
            checksums = storage.column_checksums(path, data)
            storage.write_group(path, replace(index, columns=checksums).to_attributes())

    return write


@pytest.fixture
def assert_same() -> Callable[[Candidates, Candidates], None]:
    def check(found: Candidates, expected: Candidates) -> None:
        assert (found.image_id, found.height, found.width) == (expected.image_id, expected.height, expected.width)
        for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
            got, want = getattr(found, name), getattr(expected, name)
            assert got.dtype == want.dtype, name
            np.testing.assert_array_equal(got, want, err_msg=name)

    return check
