"""The torch-operator backend, on CPU tensors: chunks, and that it never looks at a value."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from semires.stages.train.matching import MatchConfig, pack_bits, torch_ops
from semires.stages.train.matching.dense import match_dense
from semires.stages.train.matching.torch_ops import match_torch

STRATEGIES = ("iom", "cpi", "cpi-u", "cpi-o")
# What makes the host wait on CUDA: reading a number, or a shape that depends on values.
WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item", "is_nonzero", "equal")


class Recorder(TorchDispatchMode):
    """Notes the operators that run; `index` counts as waiting where a mask is among its indices."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        has_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype == torch.bool
            for indices in args
            if isinstance(indices, list | tuple)
            for index in indices
        )
        if name in WAITING or has_mask:
            self.waiting.append(name)
        return func(*args, **(kwargs or {}))


def example(seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.rand(4, 19, 19, generator=generator) < 0.5
    candidates = labels[[0] * 7 + [2] + [3] * 3] ^ (torch.rand(11, 19, 19, generator=generator) < 0.3)
    return pack_bits(candidates), torch.tensor([0, 7, 7, 8, 11]), labels


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("num_chunks", [1, 3, 6])
def test_match_torch__any_number_of_chunks(strategy: str, num_chunks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_ops, "_CHUNKS", num_chunks)
    monkeypatch.setattr(torch_ops, "_MIN_CHUNK_BYTES", 0)
    packed, offsets, labels = example(num_chunks)
    config = MatchConfig(strategy=strategy, iou_rate=0.4, inter1=0.69, inter2=0.6)  # type: ignore[arg-type]
    found = match_torch(packed, offsets, labels, 19, config, True)
    expected = match_dense(packed, offsets, labels, 19, config, True)
    assert expected.matched.any()
    assert torch.equal(found.refined, expected.refined)
    assert torch.equal(found.matched, expected.matched)
    assert torch.equal(found.chosen, expected.chosen)
    assert found.scores is not None
    assert expected.scores is not None
    assert torch.equal(found.scores, expected.scores)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_match_torch__never_looks_at_a_value(strategy: str) -> None:
    packed, offsets, labels = example(0)
    config = MatchConfig(strategy=strategy)  # type: ignore[arg-type]
    with Recorder() as recorder:
        match_torch(packed, offsets, pack_bits(labels), 19, config, True)
    assert recorder.waiting == []
    with Recorder() as recorder:
        labels[labels].sum().item()
    assert len(recorder.waiting) >= 2
