"""The CPU backend's words, threads, memory and compilation; that it answers rightly is `test_dispatch.py`'s."""

import os
import signal
import tempfile
import tracemalloc
import warnings
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numba
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from semires.stages.train.matching import MatchConfig, MatchResult, cpu, match, pack_bits
from semires.stages.train.matching.dense import match_dense

STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")


def assert_equal(found: MatchResult, expected: MatchResult) -> None:
    assert torch.equal(found.refined, expected.refined)
    assert torch.equal(found.matched, expected.matched)
    assert torch.equal(found.chosen, expected.chosen)
    if found.scores is not None and expected.scores is not None:
        assert torch.equal(found.scores, expected.scores)


def at_odd_address(packed: Tensor) -> Tensor:
    """The same rows, contiguous, from the second byte of a buffer."""
    buffer = packed.new_full((1 + packed.numel(),), 255)
    buffer[1:] = packed.flatten()
    return buffer[1:].view(packed.shape)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_threads", [1, 2, 3, 50])
def test_match_cpu__any_number_of_threads(strategy: str, num_threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their cuts fall within a label's candidates; the second label has none."""
    monkeypatch.setattr(cpu, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: num_threads)
    generator = torch.Generator().manual_seed(num_threads)
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


@settings(max_examples=150, deadline=None)
@given(
    size=st.integers(1, 40),
    strategy=st.sampled_from(STRATEGIES),
    first=st.floats(0, 1),
    length=st.floats(0, 1),
    seed=st.integers(0, 2**32 - 1),
)
def test_match_cpu__any_size_address_and_span(size: int, strategy: str, first: float, length: float, seed: int) -> None:
    """Rows of any number of bytes, which begin anywhere; labels that fill any run of pixels, or none."""
    generator = torch.Generator().manual_seed(seed)
    num_pixels = size * size
    start = int(first * num_pixels)
    stop = start + round(length * (num_pixels - start))
    labels = torch.zeros(1, num_pixels, dtype=torch.bool)
    labels[:, start:stop] = torch.rand(stop - start, generator=generator) < 0.8
    noise = torch.rand(5, num_pixels, generator=generator) < torch.tensor([0.0, 0.05, 0.3, 0.5, 1.0])[:, None]
    packed = at_odd_address(pack_bits((labels ^ noise).view(-1, size, size)))
    packed_labels = at_odd_address(pack_bits(labels.view(-1, size, size)))
    offsets = torch.tensor([0, 5])
    config = MatchConfig(strategy=strategy, iou_rate=0.3, inter1=0.5, inter2=0.4)  # type: ignore[arg-type]
    expected = match_dense(packed, offsets, labels.view(-1, size, size), size, config, True)
    assert_equal(match(packed, offsets, packed_labels, config, size=size, return_scores=True), expected)


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
@pytest.mark.parametrize("size", [480, 484])
def test_match_cpu__memory_beside_the_candidates(strategy: str, size: int) -> None:
    """The result, the label packed twice and little else, also where rows are not whole words."""
    candidates = at_odd_address(torch.randint(0, 256, (100, size * size // 8), dtype=torch.uint8))
    label = torch.ones(1, size, size, dtype=torch.bool)
    config = MatchConfig(strategy=strategy, iou_rate=0.4, inter1=0.4, inter2=0.4)  # type: ignore[arg-type]
    offsets = torch.tensor([0, 100])
    match(candidates, offsets, label, config)
    tracemalloc.start()  # numpy reports its memory to it
    try:
        found = match(candidates, offsets, label, config)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.matched.all()
    assert size * size < peak <= size * size + 2 * candidates.shape[1] + 20_000


def shares_of_ten(num_tens: int) -> int:
    """What the tests below compile: something small."""
    return num_tens // 10


def test_compiled__once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for num_hits in (0, 1):
        compiled: Any = cpu._compiled("int64(int64)")(shares_of_ten)
        assert compiled(50) == 5
        assert sum(compiled.stats.cache_hits.values()) == num_hits
    assert len(list(tmp_path.rglob("*.nbi"))) == 1


def test_compiled__where_no_cache_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)  # what numba tries a directory with
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(shares_of_ten)
    compiled: Any = cpu._compiled("int64(int64)")(shares_of_ten)
    assert compiled(50) == 5
    assert list(tmp_path.rglob("*.nbi")) == []


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
def test_compiled__where_the_cache_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    cpu._compiled("int64(int64)")(shares_of_ten)
    (file,) = tmp_path.rglob(f"*.{suffix}")
    file.write_bytes(b"")
    compiled: Any = cpu._compiled("int64(int64)")(shares_of_ten)
    assert compiled(50) == 5


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_match_cpu__in_a_forked_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a data loader's workers are, after their parent matched on several threads."""
    monkeypatch.setattr(cpu, "_BYTES_PER_THREAD", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    masks = torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(0)) < 0.5

    def is_matched() -> bool:
        return bool(match(pack_bits(masks), torch.tensor([0, 4]), masks[:1], MatchConfig(strategy="iom")).matched)

    assert is_matched()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # a process with threads forks
        child = os.fork()
    if child == 0:
        signal.alarm(30)  # ends it should it hang
        os._exit(0 if is_matched() else 1)
    assert os.waitpid(child, 0)[1] == 0
