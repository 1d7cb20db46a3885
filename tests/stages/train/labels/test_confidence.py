"""Which pixels the confidence filter keeps, against sorting."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from semires.stages.train.labels.confidence import confident_pixels


def test_confident_pixels__worked_values() -> None:
    prob = torch.tensor([[[0.9, 0.45], [0.6, 0.0]], [[0.5, 1.0], [1.0, 1.0]]])
    assert confident_pixels(prob, 0.25).tolist() == [[[True, False], [True, True]], [[False, True], [True, True]]]
    assert confident_pixels(prob, 0.5).tolist() == [[[True, False], [False, True]], [[False, True], [True, True]]]
    assert confident_pixels(prob, 0.24).all()
    assert confident_pixels(torch.ones(1, 4, 4), 0.9).all()  # all are equally sure
    assert confident_pixels(torch.ones(0, 4, 4), 0.9).shape == (0, 4, 4)


@given(share=st.sampled_from([0.0, 0.05, 0.3, 0.99]), values=st.sampled_from([3, 20, 10_000]), seed=st.integers(0, 9))
def test_confident_pixels__drops_the_least_sure_of_each_label(share: float, values: int, seed: int) -> None:
    drawn = torch.randint(0, values, (3, 5, 4), generator=torch.Generator().manual_seed(seed))
    prob = drawn.double() / (values - 1)
    for of_label, kept in zip(prob, confident_pixels(prob, share), strict=True):
        sure = (of_label - 0.5).abs()
        limit = sorted(sure.flatten().tolist())[int(share * 20)]
        assert torch.equal(kept, sure >= limit)
        assert int((~kept).sum()) <= int(share * 20)


@pytest.mark.parametrize("share", [0.0, 0.05])
def test_confident_pixels__without_gradient(share: float) -> None:
    prob = torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    kept = confident_pixels(prob, share)
    assert not kept.requires_grad
    assert int((~kept).sum()) == 2 * int(share * 25)
