"""Stage one under torchrun, on the CPU: two workers, one killed in the middle, and nothing lost."""

import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from semires.cache.reader import CandidateStore
from semires.pipeline import cli
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam

NUM_IMAGES = 24
# A start takes 5 s on a free core; on a busy machine it may take very much longer.
SECONDS = 300
# A worker: stage one with masks that depend on the pixels, and a pause in place of a SAM. It imports no SAM, so that it
# starts in half the time.
WORKER = """
import os, sys, time
from pathlib import Path
import numpy as np
from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.stages.cache_sam.filling import fill_store
from semires.stages.cache_sam.sources import folder_images
from semires.stages.processes.stopping import StopRequested
from semires.stages.cache_sam.workers import WorkerGroup

photos, store, notes, seconds = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]), float(sys.argv[4])

def make(image_id, image):
    with open(notes / f"{os.environ.get('RANK', 'alone')}-{os.getpid()}", "a") as file:
        print(image_id, file=file)
    time.sleep(seconds)
    masks = np.stack([image[:, :, channel] > 99 for channel in range(3)])
    means = image.reshape(-1, 3).mean(axis=0) / 255
    return Candidates.from_masks(image_id, masks, means, 1 - means, np.stack([means, means], axis=1))

def generate(image_ids, images):
    return [make(image_id, image) for image_id, image in zip(image_ids, images, strict=True)]

group = WorkerGroup.join()
# All of them are there before one begins, so that the one to be killed has work.
group.count("here")
while group.count("here", 0) < group.world_size:
    time.sleep(0.02)
manifest = Manifest(split="photos", sam="none", sam_sha256="0" * 64)
try:
    report = fill_store(folder_images(photos), store, manifest, generate, group=group, images_per_part=2)
except StopRequested as stop:
    sys.exit(stop.exit_code)
if group.reports:
    print("REPORT", report.num_present, report.num_added, report.num_masks, len(report.failed), flush=True)
group.leave()
"""
# The command itself, which notes every image that the SAM is through with, and then waits to be killed.
COMMAND = """
import os, sys, time
from pathlib import Path
from semires.pipeline.cli import main
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator

notes, seconds = Path(sys.argv.pop(1)), float(sys.argv.pop(1))
generate_batch = MaskGenerator.generate_batch

def generate_and_note(self, image_ids, images):
    candidates = generate_batch(self, image_ids, images)
    with open(notes / f"{os.environ['RANK']}-{os.getpid()}", "a") as file:
        print(*image_ids, file=file)
    time.sleep(seconds)
    return candidates

MaskGenerator.generate_batch = generate_and_note
main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Small images of noise."""
    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        pixels = rng.integers(0, 256, (12, 17 + number, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02d}.png")
    return tmp_path / "photos"


@pytest.fixture
def environment() -> dict[str, str]:
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "LOCAL_RANK")
    return {name: value for name, value in os.environ.items() if name not in names} | {"OMP_NUM_THREADS": "1"}


@pytest.fixture
def start(tmp_path: Path, environment: dict[str, str]) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a program in a session of its own; what is left of it at the end of the test is ended."""
    started: list[subprocess.Popen[str]] = []

    def run(*arguments: object) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
            env=environment,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.terminate()  # torchrun ends its workers
        process.communicate(timeout=SECONDS)


@pytest.fixture
def worker(tmp_path: Path, photos: Path) -> Callable[..., list[object]]:
    """The arguments of a worker that writes the store of this name."""
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "notes").mkdir()

    def arguments(store: str, seconds: float) -> list[object]:
        return [tmp_path / "worker.py", photos, tmp_path / store, tmp_path / "notes", seconds]

    return arguments


@pytest.fixture
def work_here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run a worker in this process, as the only one; returns what it printed."""

    def run(*arguments: object) -> str:
        monkeypatch.setattr("sys.argv", [str(argument) for argument in arguments])
        runpy.run_path(str(arguments[0]))
        return capsys.readouterr().out

    return run


def torchrun(*options: str) -> list[object]:
    return ["-m", "torch.distributed.run", "--nproc-per-node=2", "--monitor-interval=0.1", *options]


def kill_one(notes: Path, images: int, rank: str) -> int:
    """SIGKILL worker `rank` as soon as the workers have begun `images` images; returns its process id."""
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        files = list(notes.iterdir())
        mine = [path for path in files if path.name.startswith(f"{rank}-")]
        if mine and sum(len(path.read_text().split()) for path in files) >= images:
            pid = int(mine[0].name.split("-")[1])
            os.kill(pid, signal.SIGKILL)
            return pid
        time.sleep(0.02)
    raise AssertionError("the workers did not begin")


def assert_same_stores(found: Path, expected: Path) -> None:
    left, right = CandidateStore(found), CandidateStore(expected)
    assert left.image_ids.tolist() == right.image_ids.tolist()
    assert len(right) > 0
    for image_id in right.image_ids.tolist():
        for name in ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy"):
            np.testing.assert_array_equal(getattr(left[image_id], name), getattr(right[image_id], name))


def test_workers__one_killed_and_restarted(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
    worker: Callable[..., list[object]],
    work_here: Callable[..., str],
) -> None:
    assert "REPORT 0 24 72 0" in work_here(*worker("alone.zarr", 0))
    together = start(*torchrun("--max-restarts=1"), *worker("s.zarr", 0.2))
    kill_one(tmp_path / "notes", NUM_IMAGES + 9, "1")  # those of the single process are among them
    out, err = together.communicate(timeout=SECONDS)
    assert together.returncode == 0, err
    assert "REPORT 0 24 72 0" in out
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "alone.zarr")
    ran = {path.name.split("-")[0] for path in (tmp_path / "notes").iterdir()}
    assert ran == {"alone", "0", "1"}
    # Once more: what the killed worker had in its buffer (a part is 2 images) and in work, and what was in work in the
    # other, which was asked to stop.
    notes = [path for path in (tmp_path / "notes").iterdir() if path.name[0] in "01"]
    assert NUM_IMAGES < sum(len(path.read_text().split()) for path in notes) < NUM_IMAGES + 9


def test_workers__one_killed_and_the_next_run_goes_on(
    tmp_path: Path,
    start: Callable[..., subprocess.Popen[str]],
    worker: Callable[..., list[object]],
    work_here: Callable[..., str],
) -> None:
    work_here(*worker("alone.zarr", 0))
    together = start(*torchrun(), *worker("s.zarr", 0.2))
    kill_one(tmp_path / "notes", NUM_IMAGES + 9, "0")
    together.communicate(timeout=SECONDS)
    assert together.returncode == 1
    num_stored = len(CandidateStore(tmp_path / "s.zarr"))
    assert 4 <= num_stored < NUM_IMAGES
    assert f"REPORT {num_stored} {NUM_IMAGES - num_stored}" in work_here(*worker("s.zarr", 0))
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "alone.zarr")


def cache_sam_command(folder: Path, photos: Path) -> list[object]:
    """`semires cache-sam` with a random tiny SAM and four prompts an image, but for the store's name at the end."""
    torch.manual_seed(0)
    save_file(build_tiny_sam().state_dict(), folder / "sam.safetensors")
    sam = ["--sam", "tiny", "--sam-checkpoint", folder / "sam.safetensors", "--device", "cpu"]
    thresholds = ["--points-per-side", 2, "--pred-iou-thresh", 0, "--stability-score-thresh", 0]
    return ["cache-sam", "--images", photos, *sam, *thresholds, "--store"]


def run_here(monkeypatch: pytest.MonkeyPatch, *command: object) -> object:
    """Run `semires COMMAND` in this process; returns its exit code."""
    monkeypatch.setattr("sys.argv", ["semires", *map(str, command)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


@pytest.mark.parametrize("restarts", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_cache_sam__two_workers(
    tmp_path: Path,
    photos: Path,
    start: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
    restarts: int,
) -> None:
    (photos / "bad.png").write_bytes((photos / "00.png").read_bytes()[:60])
    command = cache_sam_command(tmp_path, photos)
    together = start(*torchrun(f"--max-restarts={restarts}"), "-m", "semires.pipeline.cli", *command, "s.zarr")
    assert run_here(monkeypatch, *command, tmp_path / "alone.zarr") == 1
    out, err = together.communicate(timeout=SECONDS)
    # Rank 0 reports, once; the other worker says at most what it set aside.
    assert out.count("images added") == 1
    assert err.count("set aside: ") == 1
    assert err.count("error: 1 images are set aside, SAM cannot be run on their files") == 1
    # Exit code 1 makes torchrun start the workers again, where it may: they find that nothing is left to do, and each
    # line came once.
    assert together.returncode == 1
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "alone.zarr")
    (reason,) = CandidateStore(tmp_path / "s.zarr").failed.values()
    assert reason.startswith("bad.png: expected an image")


@pytest.mark.slow
def test_cache_sam__one_killed_and_the_command_typed_again(
    tmp_path: Path,
    photos: Path,
    start: Callable[..., subprocess.Popen[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    command = cache_sam_command(tmp_path, photos)
    (tmp_path / "command.py").write_text(COMMAND)
    (tmp_path / "notes").mkdir()
    together = start(*torchrun(), tmp_path / "command.py", tmp_path / "notes", 1.0, *command, "s.zarr")
    assert run_here(monkeypatch, *command, tmp_path / "alone.zarr") == 0
    kill_one(tmp_path / "notes", 8, "0")
    together.communicate(timeout=SECONDS)
    # torchrun stops the other one, which commits what it has finished; what the dead one had is not in the store.
    assert together.returncode == 1
    num_stored = len(CandidateStore(tmp_path / "s.zarr"))
    assert num_stored < NUM_IMAGES
    assert run_here(monkeypatch, *command, tmp_path / "s.zarr") == 0
    assert_same_stores(tmp_path / "s.zarr", tmp_path / "alone.zarr")
