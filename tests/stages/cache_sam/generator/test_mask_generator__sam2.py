"""Candidates of SAM 2 beside those of `SAM2AutomaticMaskGenerator`, where the package `sam2` is installed."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from transformers import Sam2Model

from semires.pipeline.bench.contestants.sam2_original import INSTALL, is_installed, sam2_original, sam2s_generator
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS

pytestmark = [
    pytest.mark.skipif(not is_installed(), reason=f"needs the package sam2: {INSTALL}"),
    # Of sam2: its transforms are scripted.
    pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning", "ignore:`torch.jit:DeprecationWarning"),
]

OPEN = GeneratorSettings(
    points_per_side=3,
    pred_iou_thresh=0.0,
    stability_score_thresh=0.0,
    stability_score_offset=0.05,
    box_nms_thresh=1.0,
)


SameAsSam2s = Callable[[Sam2Model, GeneratorSettings, np.ndarray], list[dict[str, Any]]]


@pytest.fixture
def assert_same_as_sam2s(assert_same_records: Callable[..., None]) -> SameAsSam2s:
    """Ours against the installed generator; returns the latter's records."""

    def check(model: Sam2Model, settings: GeneratorSettings, image: np.ndarray) -> list[dict[str, Any]]:
        candidates = MaskGenerator(proposer_of(model, "fp32"), settings).generate(42, image)
        original, at_once = sam2_original(model), settings.points_per_batch
        records: list[dict[str, Any]] = sam2s_generator(
            original, **settings.recorded(), points_per_batch=at_once
        ).generate(image)
        assert_same_records(candidates, records)
        return records

    return check


def photograph(seed: int, height: int, width: int) -> np.ndarray:
    """Coarse patches of colour, which survive the way to the model's size, under noise."""
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, size=(6, 8, 3))
    rows, columns = (np.arange(side) * count // side for side, count in ((height, 6), (width, 8)))
    noise = rng.integers(-20, 21, size=(height, width, 3))
    return np.clip(patches[rows][:, columns] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("size", [(40, 70), (90, 41), (33, 33), (200, 150), (7, 5)])
@pytest.mark.parametrize("seed", range(3))
def test_generate__same_as_sam2s(
    small_sam2: Callable[[int], Sam2Model], seed: int, size: tuple[int, int], assert_same_as_sam2s: SameAsSam2s
) -> None:
    """SAM 2s of three shapes; images portrait, landscape, odd, larger than the model's input and tiny."""
    assert_same_as_sam2s(small_sam2(seed), replace(OPEN, points_per_side=2), photograph(seed, *size))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"box_nms_thresh": 0.97},
        {"crop_n_layers": 1, "points_per_side": 2, "crop_nms_thresh": 0.99},
        {"crop_n_layers": 2, "points_per_side": 4, "crop_n_points_downscale_factor": 2, "crop_nms_thresh": 0.99},
        {"pred_iou_thresh": 0.5},
        {"stability_score_thresh": 0.6},
        {"pred_iou_thresh": 0.4, "stability_score_thresh": 0.5, "points_per_batch": 2},
        {"use_m2m": True},
        {"use_m2m": True, "pred_iou_thresh": 0.69, "points_per_batch": 4},
        {"use_m2m": True, "stability_score_thresh": 0.68, "crop_n_layers": 1, "crop_nms_thresh": 1.0},
    ],
    ids=lambda changes: ", ".join(changes) or "open",
)
@pytest.mark.parametrize("seed", [0, 2])
def test_generate__same_as_sam2s_by_settings(
    small_sam2: Callable[[int], Sam2Model], seed: int, changes: dict[str, Any], assert_same_as_sam2s: SameAsSam2s
) -> None:
    records = assert_same_as_sam2s(small_sam2(seed), replace(OPEN, **changes), photograph(seed, 60, 90))
    assert len(records) > 2


def test_generate__same_as_sam2s_with_dynamic_multimask(
    small_sam2: Callable[[int], Sam2Model], assert_same_as_sam2s: SameAsSam2s
) -> None:
    """Some second answers are the one mask for all, some, where that is not stable, the best of the other three."""
    records = assert_same_as_sam2s(small_sam2(0), replace(OPEN, use_m2m=True), photograph(0, 60, 90))
    # The small SAM thinks much of its one mask and little of the others.
    one_mask = [record["predicted_iou"] > 0.9 for record in records]
    assert 0 < sum(one_mask) < len(records)


def test_generate__same_as_sam2s_with_its_defaults(
    small_sam2: Callable[[int], Sam2Model], assert_same_as_sam2s: SameAsSam2s
) -> None:
    """What `semires cache-sam` takes for SAM 2 is what its generator takes; nothing of random masks is left."""
    generator = sam2s_generator(sam2_original(small_sam2(1)))
    parameters = inspect.signature(type(generator).__base__.__init__).parameters
    defaults = {name: parameters[name].default for name in GENERATOR_SETTINGS.recorded()}
    assert GENERATOR_SETTINGS.recorded() == defaults
    assert (
        assert_same_as_sam2s(small_sam2(1), replace(GENERATOR_SETTINGS, points_per_side=4), photograph(1, 30, 40)) == []
    )


@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_generate__same_as_sam2s_without_masks(
    small_sam2: Callable[[int], Sam2Model], crop_n_layers: int, assert_same_as_sam2s: SameAsSam2s
) -> None:
    settings = replace(OPEN, pred_iou_thresh=1.0, crop_n_layers=crop_n_layers)
    assert assert_same_as_sam2s(small_sam2(0), settings, photograph(0, 20, 30)) == []
