"""One run on several processes, on the CPU by gloo: the same losses, one model, and a kill changes nothing."""

import hashlib
import json
import multiprocessing
import random
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.cache.views import build_view
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig

SECONDS = 120
# What every process starts with: itself as one of the ranks, and how it answers.
RANK = """
import multiprocessing
import torch
import torch.distributed as dist
from semires.stages.processes.ranks import Ranks

multiprocessing.set_start_method("fork", force=True)  # of data workers, as outside of this test
torch.set_num_threads(1)
store = dist.FileStore(location, world_size)
dist.init_process_group("gloo", store=store, rank=rank, world_size=world_size)
ranks = Ranks(store, rank, world_size)
try:
    exec(work, given | {"ranks": ranks, "answer": lambda value: results.put((rank, value))})
except Exception as error:
    results.put((rank, f"{type(error).__name__}: {error}"))
"""
# A few steps of LAVT-nano without dropout, whose numbers are each rank's own.
TRAIN = """
import hashlib
import torch
from semires.cache.views import CandidateView
from semires.stages.data.refer import ReferDataset
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.train_data import TrainData
from semires.stages.train.trainer import Trainer

torch.manual_seed(0)
model = config.build_model(pretrained=True)
for module in model.modules():
    if isinstance(module, torch.nn.Dropout):
        module.p = 0.0
    if hasattr(module, "drop_prob"):
        module.drop_prob = 0.0
dataset = ReferDataset.load(root, "refshapes")
refs, size = dataset.refs_of("train"), model.image_size
folder = RunFolder(run)
ranks.first(lambda: folder.start(config, [1]))
view = CandidateView(view_location, size) if config.method == "semires" else None
unlabeled = RefSamples(dataset, refs[-8:], model.tokenizer, size, view)
data = TrainData(
    labeled=RefSamples(dataset, refs[:4], model.tokenizer, size),
    unlabeled=None if config.method == "supervised" else unlabeled,
    val=RefSamples(dataset, dataset.refs_of("val")[:3], model.tokenizer, size),
)
trainer = Trainer(config, model, data, folder, torch.device("cpu"), ranks=ranks, say=print)
print("begins", flush=True)
trainer.train()

def sha256(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()

answer((sha256(trainer.model), sha256(trainer.evaluated)))
"""

EVALUATE = """
import torch
from semires.stages.data.refer import ReferDataset
from semires.stages.train.evaluation import evaluate
from semires.stages.train.reading.samples import RefSamples

torch.manual_seed(0)
model = config.build_model(pretrained=True)
with torch.no_grad():
    model.decoder.classify.bias.zero_()  # so that it says something
dataset = ReferDataset.load(root, "refshapes")
samples = RefSamples(dataset, dataset.refs_of("val"), model.tokenizer, model.image_size)
answer(evaluate(model, samples, torch.device("cpu"), batch_size=1, ranks=ranks))
"""


class Job:
    """Processes that gloo connects, each of which runs the source text `work`."""

    def __init__(self, folder: Path, world_size: int, work: str, **given: Any) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["semires.stages.train.trainer", "semires.stages.train.models.lavt.network"])
        self._answers: Any = context.Queue()
        shared = {"work": work, "given": given, "results": self._answers, "world_size": world_size}
        location = str(folder / f"store-{uuid.uuid4()}")
        self.processes = [
            context.Process(target=exec, args=(RANK, shared | {"rank": rank, "location": location}))
            for rank in range(world_size)
        ]
        for process in self.processes:
            process.start()

    def answers(self) -> list[Any]:
        """What `work` answered on each rank; its errors as texts."""
        found = dict(self._answers.get(timeout=SECONDS) for _ in self.processes)
        for process in self.processes:
            process.join()
        return [found[rank] for rank in range(len(self.processes))]

    def kill_after(self, seconds: float) -> bool:
        """Kill all ranks, unless they end before; whether they were killed."""
        deadline = time.monotonic() + seconds
        for process in self.processes:
            process.join(max(deadline - time.monotonic(), 0.0))
        was_alive = any(process.is_alive() for process in self.processes)
        for process in self.processes:
            process.kill()
            process.join()
        return was_alive


def on_ranks(tmp_path: Path, world_size: int, work: str, **given: Any) -> list[Any]:
    return Job(tmp_path, world_size, work, **given).answers()


@pytest.fixture(scope="module")
def viewed_store(tmp_path_factory: pytest.TempPathFactory, refshapes_store: Path) -> Path:
    store = tmp_path_factory.mktemp("viewed") / "refshapes.zarr"
    shutil.copytree(refshapes_store, store)
    build_view(store, 96)
    return store


@pytest.fixture
def given(tmp_path: Path, refshapes_root: Path, viewed_store: Path) -> Callable[..., dict[str, Any]]:
    """What `TRAIN` needs to train in the folder `name`."""

    def make(name: str, **settings: Any) -> dict[str, Any]:
        few: dict[str, Any] = {"batch_labeled": 4, "batch_unlabeled": 8, "learning_rate": 1e-3, "alpha": 0.9}
        config = TrainConfig(
            split="refshapes",
            model="nano",
            precision="fp32",
            num_evaluations=3,
            **(few | {"num_workers": 0} | settings),
        )
        return {"config": config, "root": refshapes_root, "view_location": viewed_store, "run": tmp_path / name}

    return make


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    ("settings", "many"),
    [
        ({"method": "semires", "mutual_epochs": 3}, 2),
        ({"method": "semires-cc", "mutual_epochs": 3}, 4),  # of 8 refs of 3 images, some ranks have none
        ({"method": "supervised", "batch_burn_in": 6, "burn_in_epochs": 5}, 4),  # ranks of 1 and of 2 samples
    ],
    ids=["semires", "semires-cc", "supervised"],
)
def test_trainer__same_losses_on_one_and_many_ranks(
    tmp_path: Path, given: Callable[..., dict[str, Any]], settings: dict[str, Any], many: int
) -> None:
    for world_size in (1, many):
        found = on_ranks(tmp_path, world_size, TRAIN, **given(f"run{world_size}", **settings))
        assert len(set(found)) == 1, found  # student, teacher, statistics: equal on every rank, to the bit
    alone = lines_of(tmp_path / "run1")
    for line, expected in zip(lines_of(tmp_path / f"run{many}"), alone, strict=True):
        assert line.keys() == expected.keys()
        assert line["step"] == expected["step"]
        for name in line.keys() & {"loss_sup", "loss_unsup", "label_iou_before", "label_iou_after", "matched"}:
            assert line[name] == pytest.approx(expected[name], abs=1e-4), name
        assert line["val"]["num_samples"] == expected["val"]["num_samples"]
        assert line["val"]["oiou"] == pytest.approx(expected["val"]["oiou"], abs=0.1)


def result_of(run: Path) -> tuple[Any, ...]:
    """All that a run leaves, but for the times that no two runs share."""
    times = ("seconds", "samples_per_second", "data_wait")
    lines = [{name: value for name, value in line.items() if name not in times} for line in lines_of(run)]
    result = {name: value for name, value in json.loads((run / "result.json").read_text()).items() if name != "seconds"}
    return result, lines, hashlib.sha256((run / "best.safetensors").read_bytes()).hexdigest()


def kill_again_and_again(
    tmp_path: Path, given: Callable[..., dict[str, Any]], world_size: int, num_kills: int, seed: int
) -> tuple[list[tuple[Any, ...]], tuple[Any, ...]]:
    """What runs left that were killed so often altogether, and what one left that was not."""
    settings = {  # of 4 steps
        **{"method": "semires", "batch_labeled": 2, "batch_unlabeled": 2, "mutual_epochs": 1, "micro_batch": 1},
        "num_workers": 1,
        "save_minutes": 0.0,  # a state after each step
    }
    whole = Job(tmp_path, world_size, TRAIN, **given("whole", **settings))
    began = time.monotonic()
    whole.answers()
    seconds = time.monotonic() - began
    expected = result_of(tmp_path / "whole")
    rng, killed, number, found = random.Random(seed), 0, 0, []
    while killed < num_kills:
        run = tmp_path / f"killed{number}"
        number += 1
        # One that is finished may be killed as it ends; `train_run` leaves it alone, a trainer by itself begins anew.
        while killed < num_kills and not (run / "result.json").is_file():
            job = Job(tmp_path, world_size, TRAIN, **given(run.name, **settings))
            killed += job.kill_after(rng.uniform(0.0, seconds))
        if not (run / "result.json").is_file():
            on_ranks(tmp_path, world_size, TRAIN, **given(run.name, **settings))
        found.append(result_of(run))
    return found, expected


@pytest.mark.parametrize("world_size", [1, 2])
def test_trainer__killed_at_any_moment_changes_nothing(
    tmp_path: Path, given: Callable[..., dict[str, Any]], world_size: int
) -> None:
    found, expected = kill_again_and_again(tmp_path, given, world_size, num_kills=2, seed=world_size)
    assert found == [expected] * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("world_size", [1, 2])
def test_trainer__killed_at_fifty_random_moments(
    tmp_path: Path, given: Callable[..., dict[str, Any]], world_size: int
) -> None:
    found, expected = kill_again_and_again(tmp_path, given, world_size, num_kills=50, seed=10 + world_size)
    assert found == [expected] * len(found)


def test_trainer__goes_on_with_another_number_of_ranks(tmp_path: Path, given: Callable[..., dict[str, Any]]) -> None:
    settings = {"method": "baseline", "batch_labeled": 2, "batch_unlabeled": 2, "mutual_epochs": 1, "save_minutes": 0.0}
    alone = given("alone", **settings)
    on_ranks(tmp_path, 1, TRAIN, **alone)
    job = given("together", **settings)
    for world_size, steps in ((2, "[1-3]"), (1, "[23]")):  # of 4
        started = Job(tmp_path, world_size, TRAIN, **job)
        while not list(job["run"].glob(f"state-*{steps}.pt")):
            time.sleep(0.02)
            assert started.processes[0].is_alive()
        started.kill_after(0.0)
    found = on_ranks(tmp_path, 2, TRAIN, **job)
    assert len(set(found)) == 1
    for line, expected in zip(lines_of(job["run"]), lines_of(alone["run"]), strict=True):
        assert line["loss_unsup"] == pytest.approx(expected["loss_unsup"], abs=2e-3)
        assert line["loss_sup"] == pytest.approx(expected["loss_sup"], abs=2e-3)


def test_evaluate__exact_scores_of_the_whole_on_every_rank(
    tmp_path: Path, given: Callable[..., dict[str, Any]]
) -> None:
    (expected,) = on_ranks(tmp_path, 1, EVALUATE, **given("none"))
    assert expected.oiou > 0
    assert on_ranks(tmp_path, 3, EVALUATE, **given("none")) == [expected] * 3


def test_ranks__an_error_of_the_first_ends_all(tmp_path: Path) -> None:
    work = """
from semires.stages.data.errors import InputError
assert ranks.first(lambda: 3) == 3
def refuse():
    raise InputError("expected this, found that; do so")
ranks.first(refuse)
"""
    assert on_ranks(tmp_path, 2, work) == [
        "InputError: expected this, found that; do so",
        "SaidElsewhere: expected this, found that; do so",
    ]


def test_ranks__rows_in_order_make_the_whole() -> None:
    for num in (3, 8, 13):
        for world_size in (1, 2, 3, 4):
            parts = [Ranks(None, rank, world_size).rows(num) for rank in range(world_size)]
            assert [row for part in parts for row in range(num)[part]] == list(range(num))
            sizes = [part.stop - part.start for part in parts]
            assert max(sizes) - min(sizes) <= 1


def test_ranks__one_says_what_several_find(tmp_path: Path) -> None:
    work = """
answer([ranks.claims("the same"), ranks.claims(f"its own {ranks.rank}")])
ranks.gather(None)
"""
    found = on_ranks(tmp_path, 3, work)
    assert [own for _, own in found] == [True] * 3
    assert sum(same for same, _ in found) == 1
