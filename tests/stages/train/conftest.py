"""What tests of training share: small settings, the nano tokenizer, a store with its view at 96 x 96, trainers."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.views import CandidateView, build_view
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.train_data import TrainData
from semires.stages.train.trainer import Trainer

SIZE = 96


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")


@pytest.fixture(scope="session")
def nano_config() -> Callable[..., TrainConfig]:
    """Settings of a run of a few steps on the shared RefShapes: 3 of its 12 train images are labeled."""

    def make(**changes: Any) -> TrainConfig:
        values: dict[str, Any] = {
            "split": "refshapes",
            "model": "nano",
            "labeled": 0.25,
            "burn_in_epochs": 2,
            "mutual_epochs": 1,
            "num_evaluations": 2,
            "batch_burn_in": 4,
            "batch_labeled": 2,
            "batch_unlabeled": 4,
            "learning_rate": 1e-3,
            "alpha": 0.9,
            "precision": "fp32",  # what is held to the bit, or to other code, on any machine
        }
        return TrainConfig(**(values | changes))

    return make


@pytest.fixture(scope="session")
def viewed_store(tmp_path_factory: pytest.TempPathFactory, refshapes_store: Path) -> Path:
    """A copy of the shared store, with its view at the nano model's size."""
    store = tmp_path_factory.mktemp("viewed") / "refshapes.zarr"
    shutil.copytree(refshapes_store, store)
    build_view(store, SIZE)
    return store


@pytest.fixture
def make_trainer(
    tmp_path: Path,
    refshapes: ReferDataset,
    tokenizer: Tokenizer,
    viewed_store: Path,
    nano_config: Callable[..., TrainConfig],
) -> Callable[..., Trainer]:
    """Trainers on 4 labeled, 8 unlabeled and 2 val refs, all of the same weights, that call everything foreground.

    Making one seeds torch, as `train_run` does: train it before the next is made.
    """

    def make(
        name: str = "run",
        *,
        unlabeled_class: type[RefSamples] = RefSamples,
        with_candidates: bool = True,
        num_labeled: int = 4,
        margin: float = 3.0,
        on_progress: Any = None,
        say: Any = None,
        **changes: Any,
    ) -> Trainer:
        config = nano_config(**changes)
        torch.manual_seed(0)
        model = config.build_model(pretrained=False)
        with torch.no_grad():
            assert model.decoder.classify.bias is not None
            model.decoder.classify.bias.copy_(torch.tensor([-margin, margin]))
        refs = refshapes.refs_of("train")
        view = CandidateView(viewed_store, SIZE) if with_candidates else None
        unlabeled = unlabeled_class(refshapes, refs[-8:], tokenizer, SIZE, view)
        folder = RunFolder(tmp_path / name)
        folder.start(config, [1])
        data = TrainData(
            labeled=RefSamples(refshapes, refs[:num_labeled], tokenizer, SIZE),
            unlabeled=None if config.method == "supervised" else unlabeled,
            val=RefSamples(refshapes, refshapes.refs_of("val")[:2], tokenizer, SIZE),
        )
        return Trainer(config, model, data, folder, torch.device("cpu"), on_progress, say=say)

    return make


@pytest.fixture(scope="session")
def metrics_of() -> Callable[[Trainer], list[dict[str, Any]]]:
    """The lines of a run without the seconds, which no two runs share."""
    times = ("seconds", "samples_per_second", "data_wait")
    return lambda trainer: [{k: v for k, v in line.items() if k not in times} for line in trainer.folder.read_metrics()]
