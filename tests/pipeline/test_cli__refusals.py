"""What the operating system refuses, and how a command is stopped: one line each, whatever is asked for."""

import os
import re
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from semires.pipeline import datasets
from semires.stages.train.run_folder import RunFolder

Semires = Callable[..., Any]
Refused = Callable[..., str]
TRAIN = ("train", "--split", "refcoco", "--method", "supervised", "--labeled", 0.25, "--model", "nano")
TRAIN = (*TRAIN, "--device", "cpu", "--burn-in-epochs", 2, "--batch-burn-in", 2, "--name", "one")

# (arguments, what the line says); FILE is a file where a folder is expected.
FILES: list[tuple[tuple[object, ...], str]] = [
    (("evaluate", "FILE"), "expected a run of `semires train`, found no FILE/config.json"),
    (("predict", "FILE.png", "left", "--run", "FILE"), "expected a run of `semires train`, found no FILE/config.json"),
    (("figure", "FILE"), "expected a run of `semires train`, found no FILE/config.json"),
    (("study", "labels", "FILE"), "expected a run of `semires train`, found no FILE/config.json"),
    ((*TRAIN, "--runs", "FILE"), "--runs: expected a folder, found a file at FILE"),
    ((*TRAIN, "--runs", "FILE/deeper"), "--runs: expected a folder, found a file at FILE"),
    (("table1", "--split", "refshapes", "--runs", "FILE"), "--runs: expected a folder, found a file at FILE"),
    (("make-refshapes", "--data", "FILE"), "FILE/.refshapes"),
    (("cache", "info", "FILE"), "FILE"),
    (("convert", "FILE", "-o", "out"), "FILE"),
]


@pytest.fixture
def data(semires: Semires, write_refer: Callable[..., Any], tmp_path: Path) -> Path:
    """A working directory with a small RefCOCO and the file FILE."""
    from PIL import Image

    write_refer("refcoco")
    (tmp_path / "FILE").write_text("no folder", encoding="utf-8")
    Image.new("RGB", (9, 9)).save(tmp_path / "FILE.png")
    return tmp_path


@pytest.mark.parametrize(("arguments", "text"), FILES, ids=lambda value: value[0] if isinstance(value, tuple) else "")
def test_main__a_file_in_a_folders_place(
    semires: Semires, assert_refused: Refused, data: Path, arguments: tuple[object, ...], text: str
) -> None:
    before = sorted(data.rglob("*"))
    assert_refused(semires(*arguments), text)
    assert sorted(data.rglob("*")) == before
    assert (data / "FILE").read_text(encoding="utf-8") == "no folder"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a folder that nobody may write to")
def test_main__a_folder_that_cannot_be_written(semires: Semires, assert_refused: Refused, data: Path) -> None:
    for arguments in ((*TRAIN, "--runs", "/proc/none"), ("make-refshapes", "--data", "/proc/none")):
        assert "/proc" in assert_refused(semires(*arguments))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_train__a_folder_of_somebody_elses(semires: Semires, assert_refused: Refused, data: Path) -> None:
    (data / "theirs").mkdir(mode=0o500)
    assert_refused(semires(*TRAIN, "--runs", "theirs"), "--runs: expected a folder that can be written, found theirs")


@contextmanager
def full_disk(num_bytes: int) -> Iterator[None]:
    """No file may become longer: how a disk looks on which there is so little room."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("num_bytes", [100, 2_000, 1 << 20])
def test_train__a_full_disk_loses_nothing(
    semires: Semires, assert_refused: Refused, data: Path, num_bytes: int
) -> None:
    run, patch = data / "runs" / "one", pytest.MonkeyPatch()
    if num_bytes > 2_000:  # begun before the disk was full: the second evaluation finds no room
        save_best = RunFolder.save_best

        def save_and_fill(self: RunFolder, state: Any) -> None:
            save_best(self, state)
            patch.undo()
            resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))

        patch.setattr(RunFolder, "save_best", save_and_fill)
    with full_disk(num_bytes if num_bytes <= 2_000 else resource.RLIM_INFINITY):
        finished = semires(*TRAIN, "--learning-rate", 0.01)
    if finished.code:
        assert_refused(finished, "expected space for the run's files", "free some, then type the command again")
    else:  # no later evaluation was better: there was nothing to keep
        assert "could not be written" in finished.out
    assert not [path.name for path in run.iterdir() if path.name.endswith(".tmp")]
    finished = semires(*TRAIN, "--learning-rate", 0.01)
    assert (finished.code, finished.err) == (0, "")
    assert len(RunFolder(run).read_metrics()) == RunFolder(run).read_metrics()[-1]["step"] == 4


def test_interrupt__its_own_line_and_code_130(semires: Semires, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*args: Any) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)  # the signal comes first

    monkeypatch.setattr(datasets, "load_dataset", stop)
    finished = semires("make-refshapes")
    assert (finished.code, finished.err) == (130, "stopped; type the command again to go on\n")


def test_version(semires: Semires) -> None:
    finished = semires("--version")
    assert (finished.code, finished.out, finished.err) == (0, f"semires {version('semires')}\n", "")
    assert re.fullmatch(r"semires \d+\.\d+\S*\n", finished.out)  # of a clone without tags 0.1.dev480+g6d64fcc6a
