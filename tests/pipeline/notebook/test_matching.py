import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from semires.cache.candidates import Candidates
from semires.pipeline.notebook.matching import match
from semires.stages.data.errors import InputError
from semires.stages.train.matching import MatchConfig, Strategy
from semires.stages.train.matching.reference import match_reference

STRATEGIES: tuple[Strategy, ...] = ("iom", "cpi", "cpi-u", "cpi-o")


def masks_of(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < 0.5


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 4), st.integers(0, 99), st.sampled_from(STRATEGIES))
def test_match__oblong_masks_as_square_ones_with_nothing_beside(
    height: int, width: int, num_masks: int, seed: int, strategy: Strategy
) -> None:
    mask, candidates = masks_of(seed, height, width), masks_of(seed + 1, num_masks, height, width)
    found = match(mask, candidates, strategy, inter1=0.5, iou_rate=0.3)
    side = max(height, width)
    square = np.zeros((1 + num_masks, side, side), dtype=bool)
    square[0, :height, :width], square[1:, :height, :width] = mask, candidates
    config = MatchConfig(strategy=strategy, inter1=0.5, iou_rate=0.3)
    dense = torch.from_numpy(square)
    expected = match_reference(dense[1:], torch.tensor([0, num_masks]), dense[:1], config)
    assert np.array_equal(found.refined, expected.refined[0, :height, :width].numpy())
    assert (found.matched, found.chosen) == (bool(expected.matched), int(expected.chosen))
    shared, union = (mask & candidates).sum(axis=(1, 2)), (mask | candidates).sum(axis=(1, 2))
    whole = {"iom": union, "cpi-u": np.full(num_masks, mask.sum()), "cpi-o": candidates.sum(axis=(1, 2))}
    if strategy != "cpi":
        assert found.scores.tolist() == (shared / np.maximum(whole[strategy], 1)).tolist()


def test_match__arrays_tensors_and_a_stores_candidates() -> None:
    mask, masks = masks_of(0, 5, 7), masks_of(1, 3, 5, 7)
    masks[1] |= mask
    expected = match(mask, masks)
    assert expected.matched
    packed = Candidates.from_masks(1, masks, np.ones(3), np.ones(3), np.ones((3, 2)))
    assert np.array_equal(match(mask, packed).refined, expected.refined)
    of_tensor = match(torch.from_numpy(mask), torch.from_numpy(masks))
    assert isinstance(of_tensor.refined, torch.Tensor)
    assert np.array_equal(of_tensor.refined.numpy(), expected.refined)
    # A view that is not contiguous, as a crop of a mask is.
    assert np.array_equal(match(mask.T, masks.transpose(0, 2, 1)).refined, expected.refined.T)


@pytest.mark.parametrize(
    ("mask", "candidates", "text"),
    [
        (np.zeros((2, 3)), np.zeros((1, 2, 3), bool), r"mask: expected bool \[H, W\], found torch.float64 \[2, 3\]"),
        (np.zeros((2, 3), bool), np.zeros((2, 3), bool), r"candidates: expected bool \[M, H, W\], found torch.bool"),
        (np.zeros((2, 3), bool), np.zeros((1, 3, 2), bool), r"of the mask's size \[2, 3\], found \[3, 2\]"),
    ],
)
def test_match__refuses_what_does_not_fit(mask: np.ndarray, candidates: np.ndarray, text: str) -> None:
    with pytest.raises(InputError, match=text):
        match(mask, candidates)


def test_match__unknown_strategy() -> None:
    with pytest.raises(InputError, match="found 'magic'"):
        match(np.zeros((1, 1), bool), np.zeros((0, 1, 1), bool), "magic")  # type: ignore[arg-type]
