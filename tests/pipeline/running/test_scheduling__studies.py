"""Whole studies by several commands, and by commands that are killed."""

import dataclasses
import json
import os
import random
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline.running import claims
from semires.stages.train.run_folder import RunFolder

# `semires study`, in a folder of its own.
COMMAND = """
import dataclasses, multiprocessing, os, sys
import torch
from semires.pipeline import datasets
from semires.pipeline.running import launching
from semires.pipeline.running.launchers import LaunchOptions
from semires.pipeline.study.command import run_study, runs_of

datasets.REFSHAPES = refshapes
folder.mkdir(exist_ok=True)
os.chdir(folder)
os.environ["COLUMNS"] = "120"
sys.stdout = open(output, "a", buffering=1)
torch.set_num_threads(1)
launching.CONTEXT = multiprocessing.get_context("fork")
here = dataclasses.replace(paths, runs=paths.runs.relative_to(paths.runs.parent), reports=folder / "reports")
cpu = torch.device("cpu")
run_study(study, runs_of(study, cpu), here, cpu, lambda *what: None, launch=LaunchOptions(num_workers=2))
"""
LABELS = ["Supervised, refshapes 25%, seed 0", "Baseline, refshapes 25%, seed 0", "SemiRES, refshapes 25%, seed 0"]


@pytest.fixture
def start(tiny_study: Any, refshapes_config: Any, commands: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Start the command; settings are over the study's."""

    def start_in(name: str = "work", output: str = "out", **settings: Any) -> Any:
        study = dataclasses.replace(tiny_study.study, settings=tiny_study.study.settings | settings)
        return commands(
            COMMAND,
            study=study,
            paths=tiny_study.paths,
            refshapes=refshapes_config,
            folder=tmp_path / name,
            output=tmp_path / output,
        )

    return start_in


def kept(folder: Path) -> dict[str, bytes]:
    """What a study is for: its tables, and the weights of its runs."""
    paths = [*folder.glob("reports/*"), *folder.glob("runs/studies/*/best.safetensors")]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def holders(folder: Path) -> dict[str, int]:
    """Run -> the process that is at it."""
    found = {}
    for path in folder.glob(f"runs/studies/*/{claims.NAME}"):
        with suppress(OSError, ValueError):
            found[path.parent.name] = json.loads(path.read_text())["pid"]
    return found


def test_do_tasks__two_commands_share_a_study(start: Callable[..., Any], tmp_path: Path) -> None:
    both = [start(output="first"), start(output="second")]
    for command in both:
        command.join(120)
        assert command.exitcode == 0
    texts = [(tmp_path / name).read_text() for name in ("first", "second")]
    done = re.findall(r"^(.*): done in", "".join(texts), re.M)
    assert sorted(done) == sorted([*LABELS, "candidates of refshapes at 96x96"])  # each once
    first, second = (text[text.index("RefShapes (") : text.index("written: ")] for text in texts)
    assert first == second
    assert not holders(tmp_path / "work")


def kill(command: Any, folder: Path, *, with_workers: bool) -> None:
    """With its workers, which leaves dead claims; or the command alone, whereupon they save their state and end."""
    workers = holders(folder).values()
    command.kill()
    for pid in workers if with_workers else ():
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    command.join()


def assert_equal_to_undisturbed(start: Callable[..., Any], tmp_path: Path, **settings: Any) -> None:
    both = start(**settings), start("undisturbed", "undisturbed-out", **settings)
    for command in both:
        command.join(240)
        assert command.exitcode == 0
    found, expected = kept(tmp_path / "work"), kept(tmp_path / "undisturbed")
    assert len(expected) == 2 + 3
    assert found == expected
    assert not list((tmp_path / "work").glob("runs/studies/*/*claim*"))


def test_do_tasks__a_study_killed_twice_equals_one_undisturbed(start: Callable[..., Any], tmp_path: Path) -> None:
    for method, with_workers in (("supervised", True), ("baseline", False)):
        command = start()
        deadline = time.monotonic() + 120
        while not any(f"-{method}-" in name for name in holders(tmp_path / "work")):
            assert time.monotonic() < deadline
            assert command.is_alive()
            time.sleep(0.005)
        time.sleep(0.1)
        kill(command, tmp_path / "work", with_workers=with_workers)
    assert_equal_to_undisturbed(start, tmp_path)


@pytest.mark.slow
def test_do_tasks__a_study_killed_ten_times_equals_one_undisturbed(start: Callable[..., Any], tmp_path: Path) -> None:
    settings = {
        "burn_in_epochs": 6,
        "mutual_epochs": 3,
        "batch_unlabeled": 4,
        "num_evaluations": 3,
        "save_minutes": 0.0,
    }
    moments = random.Random(0)
    for number in range(10):
        command = start(**settings)
        command.join(moments.uniform(0.3, 4.0))
        kill(command, tmp_path / "work", with_workers=number % 2 == 0)
    finished = [path for path in (tmp_path / "work" / "runs" / "studies").iterdir() if RunFolder(path).is_finished]
    print(f"{len(finished)} of 3 runs were finished after ten kills")
    assert_equal_to_undisturbed(start, tmp_path, **settings)
