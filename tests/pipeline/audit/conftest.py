"""What tests of studies share: the shared RefShapes with candidates at the nano model's size."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
import torch

from semires.cache.views import CandidateView, build_view
from semires.pipeline.audit import figure6, unlabeled
from semires.pipeline.audit.pictures import gallery, image_labels
from semires.pipeline.paths import Paths
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

SIZE = 96
LABELED = [1, 2, 4, 5, 7, 8, 9, 11]  # of 12


@pytest.fixture(scope="session")
def studied_store(tmp_path_factory: pytest.TempPathFactory, refshapes_store: Path) -> Path:
    """A copy of the shared store, with its view."""
    store = tmp_path_factory.mktemp("studied") / "refshapes.zarr"
    shutil.copytree(refshapes_store, store)
    build_view(store, SIZE)
    return store


@pytest.fixture
def samples_of(refshapes: ReferDataset, studied_store: Path) -> Callable[..., RefSamples]:
    """Train refs as samples with candidates, all of those whose image is not among `labeled`."""

    def make(labeled: Collection[int] = ()) -> RefSamples:
        refs = [ref for ref in refshapes.refs_of("train") if ref.image_id not in labeled]
        tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")
        return RefSamples(refshapes, refs, tokenizer, SIZE, CandidateView(studied_store, SIZE))

    return make


@pytest.fixture
def paths(tmp_path: Path, refshapes: ReferDataset, studied_store: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Where the shared RefShapes and its store seem to lie."""
    for module in (figure6, gallery, image_labels, unlabeled):
        monkeypatch.setattr(module, "load_dataset", lambda paths, split, on_progress: refshapes)
    found = Paths(data=tmp_path / "data")
    found.store("refshapes").parent.mkdir(parents=True)
    found.store("refshapes").symlink_to(studied_store)
    return found


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """A finished run of random weights, and the burn-in that it began with beside it; a model of such weights calls
    about half of the pixels the referent."""

    def write(name: str, seed: int, sources: dict[str, Any] | None, **settings: Any) -> Path:
        config = TrainConfig(split="refshapes", model="nano", labeled=0.25, precision="fp32", **settings)
        folder = RunFolder(tmp_path / "runs" / name)
        folder.start(config, LABELED, sources)
        torch.manual_seed(seed)
        folder.save_best(config.build_model(pretrained=False).state_dict())
        folder.finish({"best_oiou": 0.0})
        return folder.path

    def make(name: str = "run", **settings: Any) -> Path:
        settings = {"match": MatchConfig(strategy="cpi", inter1=0.5, inter2=0.9)} | settings
        burn_in = write("burn-in", 1, None, method="supervised")
        sources = {"burn_in": {"location": str(burn_in), "sha256": RunFolder(burn_in).best_sha256()}}
        return write(name, 0, sources, **settings)

    return make
