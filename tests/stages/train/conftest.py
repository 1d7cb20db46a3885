"""What tests of training share: small settings, the nano tokenizer, and a store with its view at 96 x 96."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from semires.cache.views import build_view
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer

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
