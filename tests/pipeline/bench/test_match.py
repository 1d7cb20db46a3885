"""The matching benchmark's table on small cases."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from semires.pipeline.bench import match as bench
from semires.pipeline.bench.inputs.ellipses import ellipses
from semires.pipeline.bench.match import MatchBenchConfig, bench_match
from semires.pipeline.commands.bench import app
from semires.stages.train.matching import MatchConfig, MatchResult, match, unpack_bits
from semires.stages.train.models.lavt.config import LAVT_NANO

TINY = MatchBenchConfig(
    batches=(1, 2), candidates=(3,), sizes=(8, 17), step_shape=None, repeats=1, with_training_step=False
)


def test_bench_match__a_row_for_each_case() -> None:
    threads = torch.get_num_threads()
    found = bench_match(TINY)
    assert torch.get_num_threads() == threads
    cases = [(row["S"], row["N"], row["B"], row["strategy"]) for row in found.rows]
    assert cases == [
        (size, 3, batch, strategy) for size in (8, 17) for batch in (1, 2) for strategy in ("iom", "cpi-u")
    ]
    for row in found.rows:
        loop, packed, ratio = row["loop"], row["packed"], row["loop / packed"]
        assert isinstance(loop, float)
        assert isinstance(packed, float)
        assert ratio == pytest.approx(loop / packed)
        assert ("cuda" in row) is torch.cuda.is_available()


def test_shapes__the_training_steps_comes_last_and_once() -> None:
    assert bench.QUICK.shapes() == [(1, 100, 96), (8, 100, 96), (1, 100, 480), (8, 100, 480), (3, 100, 480)]
    assert MatchBenchConfig().shapes()[-1] == (3, 100, 480)
    assert MatchBenchConfig(batches=(3,), candidates=(100,), sizes=(480, 8)).shapes() == [(3, 100, 480), (3, 100, 8)]


def test_training_step__matching_is_a_share_of_it() -> None:
    note = bench._training_step("LAVT-nano", LAVT_NANO, "cpu", batch=1, num_candidates=3, config=TINY)
    assert "LAVT-nano on cpu, 1 labeled and 1 unlabeled images" in note
    share = float(note.rsplit(", ", 1)[1].removesuffix("%"))
    assert 0 < share < 50


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_medians__refuses_a_kernel_that_refines_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    masks = ellipses(4, 16)
    case = (masks, torch.tensor([0, 4]), unpack_bits(masks[:1], 16), MatchConfig(), 1)
    assert set(bench._cuda_medians(*case)) == {"copy", "cuda"}

    def broken(candidates: torch.Tensor, *others: object) -> MatchResult:
        found = match(candidates, *others)  # type: ignore[arg-type]
        return replace(found, refined=found.refined ^ candidates.is_cuda)

    monkeypatch.setattr(bench, "match", broken)
    with pytest.raises(RuntimeError, match="cuda and packed"):
        bench._cuda_medians(*case)


def test_bench_match__dense_contestants_sit_out() -> None:
    found = bench_match(MatchBenchConfig(**(vars(TINY) | {"dense_pixels": 3 * 8 * 8})))
    assert [row["loop"] is None for row in found.rows] == [False] * 2 + [True] * 6
    assert all(row["packed"] for row in found.rows)
    assert "192 pixels" in " ".join(found.notes)


def test_share_of_copy__reading_alone_as_fast_as_a_copy_is_half() -> None:
    assert bench._share_of_copy(2.0, 2.0) == 0.5


def test_match_command__writes_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "QUICK", TINY)
    done = CliRunner().invoke(app, ["match", "--quick", "--repeats", "2", "--json", str(tmp_path / "match.json")])
    assert done.exit_code == 0, done.output
    assert '"strategy": "cpi-u"' in (tmp_path / "match.json").read_text()
    assert "median of 2 rounds" in done.output
