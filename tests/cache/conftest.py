from collections.abc import Callable

import numpy as np
import pytest

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest

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


@pytest.fixture
def assert_same() -> Callable[[Candidates, Candidates], None]:
    def check(found: Candidates, expected: Candidates) -> None:
        assert (found.image_id, found.height, found.width) == (expected.image_id, expected.height, expected.width)
        for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
            got, want = getattr(found, name), getattr(expected, name)
            assert got.dtype == want.dtype, name
            np.testing.assert_array_equal(got, want, err_msg=name)

    return check
