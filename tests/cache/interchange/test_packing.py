import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.interchange.packing import candidates_of, pack_labels, pack_runs

MASKS = st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 40)).flatmap(lambda s: arrays(np.bool_, s))


def runs_of(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Runs down the columns by their definition: a list that grows pixel by pixel."""
    runs, value = [0], False
    for pixel in mask.T.reshape(-1).tolist():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return np.array(runs, np.int64)


@given(masks=MASKS, split=st.booleans())
@settings(max_examples=60, deadline=None)
def test_pack_runs__then_candidates_are_those_of_the_masks(masks: NDArray[np.bool_], split: bool) -> None:
    runs = [runs_of(mask) for mask in masks]
    if split:  # runs of length 0 are allowed anywhere
        runs = [np.concatenate([lengths, [0, 0]]) for lengths in runs]
    height, width = masks.shape[1:]
    scores = np.arange(len(masks)) / 7
    found = candidates_of(5, width, pack_runs(runs, height, width), scores, scores / 2, np.stack([scores, scores], 1))
    expected = Candidates.from_masks(5, masks, scores, scores / 2, np.stack([scores, scores], 1))
    for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
        got, want = getattr(found, name), getattr(expected, name)
        assert got.dtype == want.dtype, name
        np.testing.assert_array_equal(got, want, err_msg=name)


@pytest.mark.parametrize("count", [0, 2])
def test_candidates_of__what_is_not_known(count: int) -> None:
    found = candidates_of(5, 9, np.zeros((count, 3, 2), np.uint8))
    assert found.points_xy.shape == (count, 2)
    for unknown in (found.predicted_iou, found.stability_score, found.points_xy):
        assert unknown.dtype == np.float32
        assert np.isnan(unknown).all()


def test_pack_labels__a_mask_a_value() -> None:
    labels = np.array([[0, 7, 7], [2**15, 0, 7]], np.int32)
    bits = pack_labels(labels, [7, 2**15])
    assert np.unpackbits(bits, axis=2, count=3).tolist() == [[[0, 1, 1], [0, 0, 1]], [[0, 0, 0], [1, 0, 0]]]
