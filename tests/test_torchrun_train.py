"""`semires train` under torchrun, on the CPU: one rank killed in the middle, and the run goes on."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from semires.stages.data.refshapes.writer import RefShapesConfig

SECONDS = 300
# The command itself on a small RefShapes; rank 1 kills itself after step 3 where it is asked to, once.
COMMAND = """
import os, signal, sys
from pathlib import Path
import torch
from semires.pipeline import cli, datasets
from semires.stages.data.refshapes.writer import RefShapesConfig
from semires.stages.train.trainer import Trainer

torch.set_num_threads(1)
datasets.REFSHAPES = RefShapesConfig(num_train=12, num_val=4, num_test=3)
killed = Path(sys.argv.pop(1))
train_step = Trainer.train_step

def train_step_and_die(self, labeled, unlabeled):
    train_step(self, labeled, unlabeled)
    if self.step == 3 and self.ranks.rank == 1 and not killed.exists():
        killed.touch()
        os.kill(os.getpid(), signal.SIGKILL)

Trainer.train_step = train_step_and_die
cli.main()
"""


@pytest.fixture
def command(tmp_path: Path, refshapes_root: Path, refshapes_config: RefShapesConfig) -> list[str]:
    assert refshapes_config == RefShapesConfig(num_train=12, num_val=4, num_test=3)
    script = tmp_path / "command.py"
    script.write_text(COMMAND)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone", "--max-restarts=1"]
    train = ["train", "--split", "refshapes", "--data", str(refshapes_root), "--runs", str(tmp_path / "runs")]
    settings = ["--method", "supervised", "--labeled", "0.25", "--batch-burn-in", "4", "--save-minutes", "0"]
    return [*torchrun, str(script), str(tmp_path / "killed"), *train, *settings, "--name", "run"]


def test_train__goes_on_after_one_rank_was_killed(tmp_path: Path, command: list[str]) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    run = tmp_path / "runs" / "run"
    done = subprocess.run(
        [*command, "--burn-in-epochs", "3"], capture_output=True, text=True, timeout=SECONDS, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "killed").exists()
    said = done.stdout.splitlines()
    assert sum(line.startswith(f"run: {run} on cpu, rank 0 of 2") for line in said) == 2
    assert any(line.startswith(f"{run}: going on from step ") for line in said)
    result = json.loads((run / "result.json").read_text())
    assert result["steps"] == result["num_steps"] > 3
    steps = [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert steps == sorted(set(steps))
