"""What tests of studies share: the shared RefShapes with candidates at the nano model's size."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

import pytest

from semires.cache.views import CandidateView, build_view
from semires.stages.data.refer import ReferDataset
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples

SIZE = 96


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
