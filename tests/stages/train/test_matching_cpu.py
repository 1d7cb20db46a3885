"""The CPU backend's blocks, threads and memory; that it answers rightly is `test_matching.py`'s."""

import tracemalloc

import pytest
import torch

from semires.stages.train import matching_cpu
from semires.stages.train.matching import MatchConfig, MatchResult, match, pack_bits
from semires.stages.train.matching_dense import match_dense

STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")


def assert_equal(found: MatchResult, expected: MatchResult) -> None:
    assert torch.equal(found.refined, expected.refined)
    assert torch.equal(found.matched, expected.matched)
    assert torch.equal(found.chosen, expected.chosen)
    if found.scores is not None and expected.scores is not None:
        assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("block_bytes", [8, 100, 5000])
def test_match_cpu__any_block_and_any_number_of_threads(
    strategy: str, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(matching_cpu, "_BLOCK_BYTES", block_bytes)
    monkeypatch.setattr(matching_cpu, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    generator = torch.Generator().manual_seed(block_bytes)
    labels = torch.rand(3, 21, 21, generator=generator) < 0.5
    labels[0, :10] = False
    candidates = labels[[0] * 9 + [2] * 5] ^ (torch.rand(14, 21, 21, generator=generator) < 0.3)
    offsets = torch.tensor([0, 9, 9, 14])
    config = MatchConfig(strategy=strategy, iou_rate=0.3, inter1=0.69, inter2=0.6)  # type: ignore[arg-type]
    packed = pack_bits(candidates)
    expected = match_dense(packed, offsets, labels, 21, config, True)
    assert expected.matched.any()
    assert_equal(match(packed, offsets, labels, config, return_scores=True), expected)
    assert_equal(match(packed, offsets, labels, config), expected)


@pytest.mark.parametrize("strategy", ["iom", "cpi-u"])
def test_match_cpu__counts_are_exact_at_4096(strategy: str) -> None:
    """2^24 pixels: more than float32 can tell apart one by one."""
    size = 4096
    num_bytes = size * size // 8
    candidates = torch.full((3, num_bytes), 255, dtype=torch.uint8)
    candidates[0, :3] = 0
    candidates[1, 5] = 0b11111110
    label = torch.full((1, num_bytes), 255, dtype=torch.uint8)
    config = MatchConfig(strategy=strategy, iou_rate=1 - 2**-24, inter1=1 - 2**-24)  # type: ignore[arg-type]
    found = match(candidates, torch.tensor([0, 3]), label, config, size=size, return_scores=True)
    # The second misses one pixel: exactly at the threshold, not above.
    assert found.chosen.tolist() == [2 if strategy == "iom" else 1]
    assert found.scores is not None
    assert found.scores.tolist() == [1 - 24 / 2**24, 1 - 1 / 2**24, 1.0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match_cpu__a_row_longer_than_a_block(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are cut as well, so that the buffers never hold more than a block."""
    monkeypatch.setattr(matching_cpu, "_BLOCK_BYTES", 64)
    monkeypatch.setattr(matching_cpu, "_BUFFERS", matching_cpu._Buffers())
    labels = torch.ones(1, 32, 32, dtype=torch.bool)
    candidates = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(0)) < 0.8
    config = MatchConfig(strategy=strategy)  # type: ignore[arg-type]
    packed, offsets = pack_bits(candidates), torch.tensor([0, 4])
    found = match(packed, offsets, labels, config, return_scores=True)
    assert_equal(found, match_dense(packed, offsets, labels, 32, config, True))
    assert len(matching_cpu._BUFFERS._counts) == len(matching_cpu._BUFFERS._words) == 8


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match_cpu__memory_beside_the_candidates(strategy: str) -> None:
    """At most 1.2 times the packed candidates, the returned refined label counted in."""
    size = 480
    candidates = torch.randint(0, 256, (100, size * size // 8), dtype=torch.uint8)
    label = torch.ones(1, size, size, dtype=torch.bool)
    config = MatchConfig(strategy=strategy, iou_rate=0.4, inter1=0.4, inter2=0.4)  # type: ignore[arg-type]
    offsets = torch.tensor([0, 100])
    match(candidates, offsets, label, config)
    tracemalloc.start()  # numpy reports its buffers to it
    try:
        found = match(candidates, offsets, label, config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.matched.all()
    assert 100_000 < peak <= 1.2 * candidates.numel()
