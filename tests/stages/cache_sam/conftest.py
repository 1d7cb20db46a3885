from pathlib import Path

import pytest
import torch
from segment_anything.modeling import Sam

from semires.stages.cache_sam.generator import GeneratorSettings
from semires.stages.cache_sam.sam import LoadedSam, load_sam
from semires.stages.cache_sam.tiny_sam import build_tiny_sam


@pytest.fixture(scope="session")
def random_sam() -> Sam:
    """The tiny SAM with random weights, always the same; its masks are blobs that mean nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tiny_sam()


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory, random_sam: Sam) -> Path:
    """The weights of `random_sam`, as segment-anything's checkpoints are saved."""
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    torch.save(random_sam.state_dict(), path)
    return path


@pytest.fixture
def loaded(random_checkpoint: Path) -> LoadedSam:
    return load_sam("tiny", random_checkpoint, torch.device("cpu"))


@pytest.fixture(scope="session")
def open_settings() -> GeneratorSettings:
    """Nine prompts, and no threshold that random masks would fall below."""
    return GeneratorSettings(
        points_per_side=3,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        stability_score_offset=0.01,
        box_nms_thresh=1.0,
    )
