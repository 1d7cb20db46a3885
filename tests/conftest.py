"""What tests of several modules share: a RefShapes of a few scenes and a store of their true masks."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from semires.cache.candidates import Candidates
from semires.cache.schema import Manifest
from semires.cache.writer import StoreWriter
from semires.stages.data.refer import ReferDataset
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.data.refshapes.writer import RefShapesConfig, write_refshapes


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny tensors gain nothing from threads, and results do not depend on the machine's cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def refshapes_config() -> RefShapesConfig:
    """12 train, 4 val, 3 testA and 3 testB images."""
    return RefShapesConfig(num_train=12, num_val=4, num_test=3)


@pytest.fixture(scope="session")
def refshapes_root(tmp_path_factory: pytest.TempPathFactory, refshapes_config: RefShapesConfig) -> Path:
    """A data root with a RefShapes of `refshapes_config` in it; shared, so only to be read."""
    root = tmp_path_factory.mktemp("data")
    write_refshapes(root, refshapes_config)
    return root


@pytest.fixture(scope="session")
def refshapes(refshapes_root: Path) -> ReferDataset:
    """The data set at `refshapes_root`."""
    return ReferDataset.load(refshapes_root, "refshapes")


@pytest.fixture(scope="session")
def refshapes_store(
    tmp_path_factory: pytest.TempPathFactory, refshapes: ReferDataset, refshapes_config: RefShapesConfig
) -> Path:
    """A store of the train images' true parts and wholes, as a SAM without faults would give; only to be read."""
    location = tmp_path_factory.mktemp("store") / "refshapes.zarr"
    manifest = Manifest(split="refshapes", sam="tiny", sam_sha256="0" * 64, num_images=refshapes_config.num_train)
    with StoreWriter(location, manifest) as writer:
        for index in range(refshapes_config.num_train):
            scene = make_scene("train", refshapes_config.seed, index)
            masks = np.concatenate([scene.object_masks, scene.part_masks[_is_part_of_composite(scene.part_owner)]])
            points = [np.argwhere(mask)[0][::-1] for mask in masks]
            # The writer numbers images from 1, those of the train split first.
            writer.add(Candidates.from_masks(index + 1, masks, np.ones(len(masks)), np.ones(len(masks)), points))
    return location


def _is_part_of_composite(part_owner: np.ndarray) -> np.ndarray:
    return np.bincount(part_owner)[part_owner] > 1


@pytest.fixture(autouse=True)
def heard_interrupts() -> Iterator[None]:
    """SIGINT as at a terminal: a suite started in a shell's background inherits it ignored, and its children too."""
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)
