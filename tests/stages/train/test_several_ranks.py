"""One run on 1, 2 and 4 processes, on the CPU by gloo: the same losses, one model."""

import json
import multiprocessing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.stages.processes.ranks import Ranks

SECONDS = 120
# What every process starts with: itself as one of the ranks, and how it answers.
RANK = """
import torch
import torch.distributed as dist
from semires.stages.processes.ranks import Ranks

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
from semires.stages.train.samples import RefSamples
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
trainer = Trainer(config, model, data, folder, torch.device("cpu"), ranks=ranks)
trainer.train()

def sha256(model):
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode() + tensor.numpy().tobytes())
    return digest.hexdigest()

answer((sha256(trainer.model), sha256(trainer.evaluated)))
"""


def on_ranks(tmp_path: Path, world_size: int, work: str, **given: Any) -> list[Any]:
    """What the source text `work` answers on each of several processes that gloo connects; its errors as texts."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["semires.stages.train.trainer", "semires.stages.train.models.lavt.network"])
    results: Any = context.Queue()
    shared = {"work": work, "given": given, "results": results, "world_size": world_size}
    location = str(tmp_path / f"store-of-{world_size}")
    processes = [
        context.Process(target=exec, args=(RANK, shared | {"rank": rank, "location": location}), daemon=True)
        for rank in range(world_size)
    ]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=SECONDS) for _ in processes)
    for process in processes:
        process.join()
    return [found[rank] for rank in range(world_size)]


@pytest.fixture
def train_on(
    tmp_path: Path, refshapes_root: Path, viewed_store: Path, nano_config: Callable[..., Any]
) -> Callable[..., list[Any]]:
    """Trains in the folder `name` on so many ranks; of each (student's sha256, evaluated model's sha256)."""

    def train(name: str, world_size: int, **settings: Any) -> list[Any]:
        config = nano_config(num_evaluations=3, **settings)
        given = {"config": config, "root": refshapes_root, "view_location": viewed_store, "run": tmp_path / name}
        return on_ranks(tmp_path, world_size, TRAIN, **given)

    return train


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "semires", "batch_labeled": 4, "batch_unlabeled": 8, "mutual_epochs": 3},
        {"method": "supervised", "batch_burn_in": 6, "burn_in_epochs": 5},  # ranks of 1 and of 2 samples
    ],
    ids=["semires", "supervised"],
)
def test_trainer__same_losses_on_one_two_and_four_ranks(
    tmp_path: Path, train_on: Callable[..., list[Any]], settings: dict[str, Any]
) -> None:
    for world_size in (1, 2, 4):
        found = train_on(f"run{world_size}", world_size, **settings)
        assert len(set(found)) == 1, found  # student, teacher, statistics: equal on every rank, to the bit
    alone = lines_of(tmp_path / "run1")
    for world_size in (2, 4):
        for line, expected in zip(lines_of(tmp_path / f"run{world_size}"), alone, strict=True):
            assert line.keys() == expected.keys()
            assert line["step"] == expected["step"]
            for name in line.keys() & {"loss_sup", "loss_unsup", "label_iou_before", "label_iou_after", "matched"}:
                assert line[name] == pytest.approx(expected[name], abs=1e-4), name
            assert line["val"]["num_samples"] == expected["val"]["num_samples"]
            assert line["val"]["oiou"] == pytest.approx(expected["val"]["oiou"], abs=0.1)


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
