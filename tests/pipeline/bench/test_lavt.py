import dataclasses

import numpy as np
import pytest
import torch
from torch import nn

from semires.pipeline.bench import lavt as bench
from semires.pipeline.bench.lavt import (
    CHECKPOINTED,
    MEASURED,
    OURS,
    PASSES,
    PLAIN,
    Case,
    LavtBenchConfig,
    bench_lavt,
    make_contestant,
    resident_memory,
)
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_SIZES, LavtConfig


@pytest.fixture(autouse=True)
def _tiny(monkeypatch: pytest.MonkeyPatch, tiny_lavt: LavtConfig) -> None:
    monkeypatch.setitem(LAVT_SIZES, "tiny", tiny_lavt)
    monkeypatch.setattr(bench, "PEAK_SIDE", 64)


def test_bench_lavt__a_row_for_each_contestant(monkeypatch: pytest.MonkeyPatch) -> None:
    # Starting processes takes seconds.
    monkeypatch.setattr(bench, "_memory", lambda *_: dict.fromkeys(PASSES, 7.0))
    found = bench_lavt(LavtBenchConfig(cases=(Case("tiny", 40, 2), Case("tiny", 48, 1)), repeats=1))
    assert [row["contestant"] for row in found.rows] == 2 * [PLAIN, OURS, CHECKPOINTED]
    assert found.rows[0]["LAVT"] == "tiny, 40, batch 2"
    for row in found.rows:
        for which in MEASURED[str(row["contestant"])]:
            figures = [row[f"{which}, {figure}"] for figure in ("ms", "ratio", "GFLOP", "MB")]
            assert all(isinstance(figure, float) and np.isfinite(figure) and figure > 0 for figure in figures)
            assert str(row[f"{which}, of peak"]).endswith("%")
    plain, ours, checkpointed = found.rows[:3]
    assert plain["forward, ratio"] == plain["forward + backward, ratio"] == 1
    assert ours["forward, GFLOP"] < plain["forward, GFLOP"]  # type: ignore[operator]
    assert checkpointed["forward, ms"] is checkpointed["forward, of peak"] is None
    assert checkpointed["forward + backward, GFLOP"] > ours["forward + backward, GFLOP"]  # type: ignore[operator]
    assert "median of 1 rounds in turns, on cpu" in found.notes[0]


def test_bench_lavt__other_logits_are_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="expected equal logits of both networks"):
        bench_lavt(LavtBenchConfig(cases=(Case("tiny", 40, 1),), repeats=1))


def test_plain__same_gradients(tiny_lavt: LavtConfig) -> None:
    torch.manual_seed(0)
    lavt = Lavt(dataclasses.replace(tiny_lavt, drop_path=0.0, fusion_dropout=0.0)).double()
    lavt.parameter_groups(weight_decay=0.0, learning_rate=1.0)
    plain = make_contestant(PLAIN, lavt)
    images, ids = torch.randn(2, 3, 40, 56, dtype=torch.float64), torch.randint(5, 500, (2, 20))
    mask = (torch.arange(20) < torch.tensor([[4], [9]])).long()
    for model in (lavt, plain):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.train()
            else:
                module.training = False  # no dropout
        model(images, ids, mask).square().sum().backward()
    ours = [p.grad.square().sum() for p in lavt.parameters() if p.grad is not None]
    theirs = [p.grad.square().sum() for p in plain.parameters() if p.grad is not None]
    assert len(ours) == len(theirs)
    torch.testing.assert_close(torch.stack(ours).sort()[0], torch.stack(theirs).sort()[0], rtol=1e-6, atol=1e-12)


def test_resident_memory__of_both_passes() -> None:
    found = resident_memory(OURS, Case("tiny", 480, 2), torch.get_num_threads())
    # The images' logits alone are 4 MB.
    assert 4 < found["forward"] < 1000
    assert 4 < found["forward + backward"] < 1000
