import numpy as np
import pytest

from semires.pipeline.bench.measures.agreement import Agreement, agreement


def test_agreement__equal_moved_and_lost() -> None:
    expected = np.zeros((3, 4, 4), dtype=np.bool_)
    expected[0, :2], expected[1, 0], expected[2, :, 3] = True, True, True
    found = expected[[1, 0]].copy()  # in another order, the third one lost
    found[1, 2, 0] = True  # 8 of 9 pixels
    # The lost one has pixels (0, 3) and (1, 3) in found[1] of 9 pixels, (0, 3) in found[0]: 2 of 11 and 1 of 7.
    agreed = agreement([found], [expected])
    assert agreed.equal == pytest.approx(1 / 3)
    assert agreed.mean_iou == pytest.approx((8 / 9 + 1 + 2 / 11) / 3)
    assert agreed.lowest_iou == pytest.approx(2 / 11)


def test_agreement__without_masks() -> None:
    none, empty = np.zeros((0, 4, 4), dtype=np.bool_), np.zeros((1, 4, 4), dtype=np.bool_)
    assert agreement([empty], [none]) == Agreement(equal=None, mean_iou=None, lowest_iou=None)
    assert agreement([none, none], [empty, none]) == Agreement(equal=0.0, mean_iou=0.0, lowest_iou=0.0)
    assert agreement([empty], [empty]) == Agreement(equal=1.0, mean_iou=1.0, lowest_iou=1.0)


def test_agreement__more_pixels_than_are_counted_at_once() -> None:
    masks = np.random.default_rng(0).random((2, 300, 500)) < 0.5
    other = masks.copy()
    other[0, 299, 499] ^= True
    union = np.count_nonzero(masks[0] | other[0])
    agreed = agreement([other], [masks])
    assert agreed.equal == 0.5
    assert agreed.lowest_iou == pytest.approx((union - 1) / union, abs=1e-12)
