import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


def test_train_plan__of_refcoco_without_its_data(semires: Callable[..., Any], tmp_path: Path) -> None:
    """Nothing is here but the package; nothing is started, and nothing written but the file asked for."""
    arguments = ("--split", "refcoco", "--model", "nano", "--method", "baseline", "--burn-in", "a-run")
    arguments += ("--grad-checkpointing", "--micro-batch", 2)
    planning = ("--plan", "--plan-device", "rtx3090", "--plan-gpus", 4, "--plan-json", "plan.json")
    finished = semires("train", *arguments, *planning)
    assert (finished.code, finished.err) == (0, "")
    assert "plan: baseline on refcoco, nano at 96 x 96, bf16, on 4 x NVIDIA RTX 3090, 24 GiB" in finished.out
    assert "432 labeled and 41,972 unlabeled refs" in finished.out
    assert "published counts" in finished.out
    assert "fit into the 22.5 GiB" in finished.out
    assert [path.name for path in tmp_path.iterdir()] == ["plan.json"]
    plan = json.loads((tmp_path / "plan.json").read_text())
    (phase,) = plan["phases"]
    assert phase["steps"] == 41_972 * 40 // 12
    assert phase["share"] == {"labeled": 3, "unlabeled": 3, "at_once": 2}
    assert sum(part["trained"] for part in plan["parts"]) == 2_478_565
    peak = phase["figures"]["peak"]
    assert peak["student"] == peak["teacher"] > 4 * 2_478_565  # buffers too
    assert peak["optimizer"] == 2 * 4 * 2_478_565
    assert peak["gradients"] == 4 * 2_478_565  # of the parts before
    assert phase["figures"]["flops_teacher"] == 3 * plan["evaluation_flops"]
    # Forward, backward and a part of the forward again, of every sample in every part.
    assert 3.05 < phase["figures"]["flops_student"] / (6 * plan["evaluation_flops"]) < 4


def test_train_plan__of_a_run_that_goes_on(
    semires: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes on with the batches of its time, as training would."""
    planned = []
    monkeypatch.setattr("semires.pipeline.planning.command.print_plan", lambda config, *_, **__: planned.append(config))
    RunFolder(tmp_path / "runs" / "old").start(TrainConfig(batch_burn_in=6, model="nano"), [1])
    for options in (("--name", "old"), ("--name", "old", "--restart"), ("--name", "new")):
        assert semires("train", "--split", "refcoco", "--model", "nano", "--plan", *options).code == 0
    assert [config.batch_burn_in for config in planned] == [6, 8, 8]
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--plan-device", "abacus"), ("--plan-device: expected cpu", "'abacus'")),
        (("--plan-device", "t4", "--plan-gpus", 0), ("--plan-gpus", "found 0")),
        (("--plan-device", "t4", "--plan-gpus", 9), ("--plan-gpus", "found 9 for batches of 4 + 12")),
    ],
)
def test_train_plan__refused_in_one_line(
    semires: Callable[..., Any],
    assert_refused: Callable[..., str],
    arguments: tuple[Any, ...],
    expected: tuple[str, ...],
) -> None:
    assert_refused(semires("train", "--split", "refshapes", "--plan", *arguments), *expected)
