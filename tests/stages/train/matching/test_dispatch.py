"""Matching on packed bits against the dense reference, and the cases the paper leaves open."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.matching import MatchConfig, MatchResult, match, pack_bits
from semires.stages.train.matching.cpu import match_cpu
from semires.stages.train.matching.dense import match_dense
from semires.stages.train.matching.dispatch import backend_of
from semires.stages.train.matching.reference import match_reference
from semires.stages.train.matching.torch_ops import match_torch

STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")
# What Triton's interpreter does in a few seconds.
NUM_INTERPRETED = 60
# Those that run on CPU tensors. match itself takes the CPU's; Triton's are in test_triton_kernels.py.
BACKENDS = {"cpu": match_cpu, "torch": match_torch, "dense": match_dense}
# The shares that small counts hit exactly: 1/2, 2/3-like neighbours, 7/10, 3/4, both ends.
THRESHOLDS = (0.0, 0.25, 0.3, 0.5, 0.6, 0.7, 0.75, 0.9, 1.0)


def row(*pixels: int, size: int = 4) -> Tensor:
    """A mask with the given flat pixels set."""
    mask = torch.zeros(size * size, dtype=torch.bool)
    mask[list(pixels)] = True
    return mask.reshape(size, size)


def run_one(label: Tensor, candidates: list[Tensor], **config: object) -> tuple[Tensor, bool, int]:
    """Match one sample; checks on the way that the reference says the same."""
    stacked = torch.stack(candidates) if candidates else torch.zeros(0, *label.shape, dtype=torch.bool)
    offsets = torch.tensor([0, len(candidates)])
    settings_ = MatchConfig(**config)  # type: ignore[arg-type]
    result = match(pack_bits(stacked), offsets, label[None], settings_)
    expected = match_reference(stacked, offsets, label[None], settings_)
    assert torch.equal(result.refined, expected.refined)
    assert torch.equal(result.matched, expected.matched)
    assert torch.equal(result.chosen, expected.chosen)
    return result.refined[0], bool(result.matched[0]), int(result.chosen[0])


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor]:
    """Candidates, offsets and labels rich in ties, exact ratios, nesting, empty and full masks."""
    size = draw(st.integers(1, 11))
    counts = draw(st.lists(st.integers(0, 6), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    num_pixels = size * size
    labels, candidates = [], []
    for count in counts:
        # Runs of a shared permutation nest and overlap in small ratios; repeats give ties.
        order = rng.permutation(num_pixels)

        def run(order: np.ndarray = order) -> np.ndarray:
            start, stop = np.sort(rng.integers(0, min(num_pixels, 12) + 1, 2))
            mask = np.zeros(num_pixels, dtype=bool)
            mask[order[start:stop]] = True
            return ~mask if rng.random() < 0.1 else mask

        labels.append(run())
        own: list[np.ndarray] = []
        for _ in range(count):
            own.append(own[rng.integers(len(own))] if own and rng.random() < 0.25 else run())
        candidates += own
    stacked = np.array(candidates, dtype=bool).reshape(len(candidates), size, size)
    return (
        torch.from_numpy(stacked),
        torch.tensor(np.cumsum([0, *counts])),
        torch.from_numpy(np.array(labels).reshape(-1, size, size)),
    )


@settings(max_examples=250, deadline=None)
@given(
    batch=batches(),
    strategy=st.sampled_from(STRATEGIES),
    rates=st.tuples(*[st.sampled_from(THRESHOLDS)] * 3),
    is_packed=st.booleans(),
    name=st.sampled_from(sorted(BACKENDS)),
)
def test_match__equals_the_reference(
    batch: tuple[Tensor, Tensor, Tensor],
    strategy: str,
    rates: tuple[float, float, float],
    is_packed: bool,
    name: str,
) -> None:
    candidates, offsets, labels = batch
    size = labels.shape[1]
    config = MatchConfig(strategy=strategy, iou_rate=rates[0], inter1=rates[1], inter2=rates[2])  # type: ignore[arg-type]
    expected = match_reference(candidates, offsets, labels, config)
    given_labels = pack_bits(labels) if is_packed else labels
    if name == "cpu" or len(candidates) == 0:  # the other backends leave no candidates to match
        result = match(pack_bits(candidates), offsets, given_labels, config, size=size)
    else:
        result = BACKENDS[name](pack_bits(candidates), offsets, given_labels, size, config, False)
    assert result.refined.dtype == result.matched.dtype == torch.bool
    assert result.chosen.dtype == torch.int64
    assert torch.equal(result.refined, expected.refined)
    assert torch.equal(result.matched, expected.matched)
    assert torch.equal(result.chosen, expected.chosen)
    assert torch.equal(result.refined[~result.matched], labels[~result.matched])


def test_match__iom_ties_go_to_the_lower_index() -> None:
    label = row(0, 1, 2, 3)
    refined, matched, chosen = run_one(label, [row(9), row(0, 1, 2), row(1, 2, 3), row(0, 1, 2)], strategy="iom")
    assert matched
    assert chosen == 1
    assert torch.equal(refined, row(0, 1, 2))


def test_match__iom_at_the_threshold_is_unmatched() -> None:
    label = row(0, 1)
    assert run_one(label, [row(0)], strategy="iom")[1:] == (False, -1)  # IoU 1/2
    assert run_one(label, [row(0)], strategy="iom", iou_rate=0.49)[1:] == (True, 0)


@pytest.mark.parametrize(("inter", "is_matched"), [(7, False), (8, True)])
def test_match__cpi_u_is_strict_at_seven_tenths(inter: int, is_matched: bool) -> None:
    label = row(*range(10))
    assert run_one(label, [row(*range(inter))], strategy="cpi-u")[1] is is_matched


def test_match__cpi_o_is_strict_at_seven_tenths() -> None:
    label = row(*range(7), 10)
    assert not run_one(label, [row(*range(7), 11, 12, 13)], strategy="cpi-o")[1]
    assert run_one(label, [row(*range(7), 11, 12)], strategy="cpi-o")[1]


def test_match__cpi_unites_all_that_qualify() -> None:
    label = row(0, 1, 2, 3)
    part, whole, other = row(0, 1), row(0, 1, 2, 3, 4, 5, 6, 7), row(8, 9)
    candidates = [part, whole, other]
    assert torch.equal(run_one(label, candidates, strategy="cpi-u")[0], whole)
    assert torch.equal(run_one(label, candidates, strategy="cpi-o")[0], part)
    refined, _, num_united = run_one(label, candidates, strategy="cpi")
    assert torch.equal(refined, part | whole)
    assert num_united == 2


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_match__nothing_to_match(strategy: str, rate: float) -> None:
    rates = {"strategy": strategy, "iou_rate": rate, "inter1": rate, "inter2": rate}
    none = -1 if strategy == "iom" else 0
    label, empty = row(0, 1, 2), row()
    assert run_one(label, [], **rates)[1:] == (False, none)
    assert run_one(label, [empty], **rates)[1:] == (False, none)
    assert run_one(empty, [row(0, 1), empty], **rates)[1:] == (False, none)
    assert torch.equal(run_one(label, [empty, row(9)], **rates)[0], label)


def test_match__unaligned_candidates_are_read_right() -> None:
    # A slice that starts inside a 64-bit word, as a column of a larger buffer may.
    label = row(*range(5), size=8)
    buffer = torch.zeros(1 + 2 * 8, dtype=torch.uint8)
    buffer[1:] = pack_bits(torch.stack([row(9, size=8), row(*range(6), size=8)])).flatten()
    result = match(buffer[1:].view(2, 8), torch.tensor([0, 2]), label[None], MatchConfig())
    assert torch.equal(result.refined[0], row(*range(6), size=8))


def strided(tensor: Tensor) -> Tensor:
    """The same values, every second element of each dimension of a larger tensor."""
    larger = tensor.new_ones([2 * length + 1 for length in tensor.shape])
    spread = larger[tuple(slice(1, None, 2) for _ in tensor.shape)]
    spread.copy_(tensor)
    return spread


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", sorted(BACKENDS))
@pytest.mark.parametrize("num_samples", [1, 3])
@pytest.mark.parametrize("size", [5, 8, 16])
def test_match__any_strides(strategy: str, name: str, num_samples: int, size: int) -> None:
    generator = torch.Generator().manual_seed(size)
    labels = torch.rand(num_samples, size, size, generator=generator) < 0.5
    candidates = labels.repeat_interleave(2, 0) ^ (torch.rand(2 * num_samples, size, size, generator=generator) < 0.2)
    packed, packed_labels, offsets = pack_bits(candidates), pack_bits(labels), 2 * torch.arange(num_samples + 1)
    config = MatchConfig(strategy=strategy, iou_rate=0.5, inter1=0.6, inter2=0.6)  # type: ignore[arg-type]
    expected = match_reference(candidates, offsets, labels, config)
    assert expected.matched.any()
    innermost = labels.permute(1, 2, 0).contiguous().permute(2, 0, 1)  # the samples' axis
    for given_labels in (strided(labels), labels.mT.contiguous().mT, innermost, strided(packed_labels)):
        found = BACKENDS[name](strided(packed), strided(offsets), given_labels, size, config, True)
        assert torch.equal(found.refined, expected.refined)
        assert torch.equal(found.matched, expected.matched)
        assert torch.equal(found.chosen, expected.chosen)
    assert torch.equal(match(strided(packed), strided(offsets), strided(labels), config).refined, expected.refined)


def test_match__leaves_its_inputs_alone() -> None:
    labels, candidates = row(0, 1, 2)[None], pack_bits(row(0, 1, 2, 3)[None])
    kept = labels.clone(), candidates.clone()
    match(candidates, torch.tensor([0, 1]), labels, MatchConfig()).refined.zero_()
    assert torch.equal(labels, kept[0])
    assert torch.equal(candidates, kept[1])


def test_match__bad_shapes_are_named() -> None:
    labels = row(0)[None]
    with pytest.raises(InputError, match="packed at 4x4 pixels"):
        match(torch.zeros(1, 8, dtype=torch.uint8), torch.tensor([0, 1]), labels, MatchConfig())
    with pytest.raises(InputError, match="rising offsets"):
        match(torch.zeros(1, 2, dtype=torch.uint8), torch.tensor([0, 2]), labels, MatchConfig())
    with pytest.raises(InputError, match="with size=S"):
        match(torch.zeros(1, 2, dtype=torch.uint8), torch.tensor([0, 1]), pack_bits(labels), MatchConfig())
    with pytest.raises(InputError, match="leave size out"):
        match(torch.zeros(1, 2, dtype=torch.uint8), torch.tensor([0, 1]), labels, MatchConfig(), size=5)


def seeded_batch(random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """As `batches`, drawn faster: small counts of pixels over odd and even sizes, repeats, nested, empty masks."""
    size = int(random.choice([1, 2, 3, 4, 7, 8, 13]))
    counts = random.integers(0, 5, random.integers(1, 4))
    num_pixels = size * size
    order = random.permutation(num_pixels)

    def run() -> np.ndarray:
        start, stop = np.sort(random.integers(0, min(num_pixels, 12) + 1, 2))
        mask = np.zeros(num_pixels, dtype=bool)
        mask[order[start:stop]] = True
        return mask

    masks = np.array([run() for _ in range(len(counts) + counts.sum())]).reshape(-1, size, size)
    candidates = masks[len(counts) :]
    if len(candidates) > 1:
        candidates[random.integers(len(candidates))] = candidates[random.integers(len(candidates))]
    return (
        torch.from_numpy(candidates),
        torch.from_numpy(np.cumsum([0, *counts])),
        torch.from_numpy(masks[: len(counts)]),
    )


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match__every_backend_equals_the_reference_in_hundreds_of_batches(strategy: str) -> None:
    random = np.random.default_rng(STRATEGIES.index(strategy))
    num_matched = num_samples = 0
    for _ in range(400):
        candidates, offsets, labels = seeded_batch(random)
        size = labels.shape[1]
        rates = random.choice(THRESHOLDS, 3)
        config = MatchConfig(strategy=strategy, iou_rate=rates[0], inter1=rates[1], inter2=rates[2])  # type: ignore[arg-type]
        expected = match_reference(candidates, offsets, labels, config)
        packed = pack_bits(candidates)
        results = [match(packed, offsets, labels, config), match(packed, offsets, labels, config, return_scores=True)]
        if len(packed):
            results += [backend(packed, offsets, labels, size, config, True) for backend in (match_torch, match_dense)]
        for result in results:
            assert torch.equal(result.refined, expected.refined)
            assert torch.equal(result.matched, expected.matched)
            assert torch.equal(result.chosen, expected.chosen)
            assert result.scores is None or torch.equal(result.scores, results[1].scores)  # type: ignore[arg-type]
        num_matched += int(expected.matched.sum())
        num_samples += len(labels)
    assert 0.1 * num_samples < num_matched < 0.9 * num_samples


def seeded_case(random: np.random.Generator, number: int) -> tuple[Tensor, Tensor, Tensor, MatchConfig]:
    """A `seeded_batch` with at least one candidate, and one of few configurations: Triton compiles for each."""
    batch = seeded_batch(random)
    while len(batch[0]) == 0:
        batch = seeded_batch(random)
    rate = (0.0, 0.5, 0.7)[number // len(STRATEGIES) % 3]
    strategy = STRATEGIES[number % len(STRATEGIES)]
    return *batch, MatchConfig(strategy=strategy, iou_rate=rate, inter1=rate, inter2=rate)  # type: ignore[arg-type]


def assert_equal(found: MatchResult, expected: MatchResult) -> None:
    assert torch.equal(found.refined.cpu(), expected.refined)
    assert torch.equal(found.matched.cpu(), expected.matched)
    assert torch.equal(found.chosen.cpu(), expected.chosen)


INTERPRET = """
import sys, torch
from semires.stages.train.matching.triton_kernels import match_triton
cases = torch.load(sys.argv[1], weights_only=False)
torch.save([match_triton(*case) for case in cases], sys.argv[2])
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="needs Triton, which torch's CUDA build brings")
def test_match__triton_interpreted_equals_the_reference(tmp_path: Path) -> None:
    """Every second case with strided inputs."""
    random = np.random.default_rng(0)
    cases = [seeded_case(random, number) for number in range(NUM_INTERPRETED)]
    given = []
    for number, (candidates, offsets, labels, config) in enumerate(cases):
        tensors = [pack_bits(candidates), offsets, labels]
        if number % 2:
            tensors = [strided(tensor) for tensor in tensors]
        given.append((*tensors, labels.shape[1], config, False))
    torch.save(given, tmp_path / "cases.pt")
    # A process of its own: Triton reads the setting when it is imported.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", INTERPRET, str(tmp_path / "cases.pt"), str(tmp_path / "found.pt")],
        env=os.environ | {"TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    results = torch.load(tmp_path / "found.pt", weights_only=False)
    for (candidates, offsets, labels, config), found in zip(cases, results, strict=True):
        assert_equal(found, match_reference(candidates, offsets, labels, config))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_match__cuda_equals_the_reference_in_thousands_of_batches() -> None:
    """Every second case with strided inputs, every third with offsets on the device."""
    random = np.random.default_rng(0)
    for number in range(2400):
        candidates, offsets, labels, config = seeded_case(random, number)
        expected = match_reference(candidates, offsets, labels, config)
        tensors = [pack_bits(candidates).cuda(), offsets.cuda() if number % 3 == 0 else offsets, labels.cuda()]
        if number % 2:
            tensors = [strided(tensor) for tensor in tensors]
        for backend in {backend_of("cuda"), match_torch}:
            assert_equal(backend(*tensors, labels.shape[1], config, False), expected)


def test_match__scores_are_what_was_compared() -> None:
    label = row(0, 1, 2, 3)
    packed = pack_bits(torch.stack([row(0, 1, 9), row(8), row(0, 1, 2, 3, 4, 5, 6, 7)]))
    expected = {
        "iom": [2 / 5, 0.0, 4 / 8],
        "cpi-u": [2 / 4, 0.0, 1.0],
        "cpi-o": [2 / 3, 0.0, 4 / 8],
        "cpi": [2 / 3, 0.0, 1.0],
    }
    for strategy, scores in expected.items():
        config = MatchConfig(strategy=strategy)  # type: ignore[arg-type]
        result = match(packed, torch.tensor([0, 3]), label[None], config, return_scores=True)
        assert result.scores is not None
        assert result.scores.dtype == torch.float64
        assert result.scores.tolist() == scores
        assert match(packed, torch.tensor([0, 3]), label[None], config).scores is None


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match__nothing_at_all(strategy: str) -> None:
    config = MatchConfig(strategy=strategy)  # type: ignore[arg-type]
    result = match(
        torch.zeros(0, 2, dtype=torch.uint8),
        torch.tensor([0]),
        torch.zeros(0, 4, 4, dtype=torch.bool),
        config,
        return_scores=True,
    )
    assert result.refined.shape == (0, 4, 4)
    assert result.matched.shape == result.chosen.shape == (0,)
    assert result.scores is not None
    assert result.scores.shape == (0,)
    packed_label = pack_bits(row(0, 5)[None])
    result = match(torch.zeros(0, 2, dtype=torch.uint8), torch.tensor([0, 0]), packed_label, config, size=4)
    assert torch.equal(result.refined[0], row(0, 5))
    assert result.chosen.tolist() == [config.no_choice]


def test_match__is_light_to_import() -> None:
    script = (
        "import sys, semires.stages.train.matching\n"
        "heavy = {'transformers', 'zarr', 'torchvision', 'segment_anything', 'triton', 'typer', 'PIL', 'numba'}\n"
        "from semires.stages.train.matching import match\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
