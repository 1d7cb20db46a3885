import pytest
import torch

from semires.pipeline.bench.contestants.plain_match import match_by_loop, match_by_matmul
from semires.pipeline.bench.inputs.ellipses import ellipses
from semires.stages.train.matching import MatchConfig, match, unpack_bits


@pytest.mark.parametrize("strategy", ["iom", "cpi-u"])
@pytest.mark.parametrize("shift", [0, 2, 9])
def test_match_by__refine_as_the_kernels_do(strategy: str, shift: int) -> None:
    config = MatchConfig(strategy=strategy)  # type: ignore[arg-type]
    packed = ellipses(12, 20)
    masks = unpack_bits(packed, 20)
    for label in (masks[0].roll(shift, 1), masks[5], torch.zeros_like(masks[0])):
        expected = match(packed, torch.tensor([0, 12]), label[None], config).refined[0]
        assert torch.equal(match_by_loop(masks, label, config), expected)
        assert torch.equal(match_by_matmul(masks, label, config), expected)
