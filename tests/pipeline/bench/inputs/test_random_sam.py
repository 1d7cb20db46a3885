from dataclasses import replace

import numpy as np
import pytest
import torch

from semires.pipeline.bench.inputs import random_sam as module
from semires.pipeline.bench.inputs.random_sam import random_sam, settings_for, threshold_above
from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam
from semires.stages.data.refshapes.scene import make_scene

CPU = torch.device("cpu")


@pytest.fixture
def scenes(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """Two scenes; vit_b is as small as the tiny SAM."""
    monkeypatch.setitem(module.sam_model_registry, "vit_b", build_tiny_sam)
    return [make_scene("sam_check", 0, index).image for index in range(2)]


def test_random_sam__the_same_by_seed(scenes: list[np.ndarray]) -> None:
    one, same, other = (random_sam("vit_b", scenes[0], CPU, seed=seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[name], same[name]) for name in one)
    name = "image_encoder.patch_embed.proj.weight"
    assert not torch.equal(one[name], other[name])


def test_settings_for__some_masks_survive(scenes: list[np.ndarray], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "NUM_MASKS", 20)
    sam = random_sam("vit_b", scenes[0], CPU)
    settings = settings_for(sam, scenes, GeneratorSettings(points_per_side=6))
    assert settings.points_per_side == 6
    assert 0.5 < settings.pred_iou_thresh < 0.9
    counts = [MaskGenerator(proposer_of(sam), settings).generate(0, scene).num_masks for scene in scenes]
    assert min(counts) >= 19
    assert max(counts) < 3 * 36
    passing = replace(settings, stability_score_thresh=0.0)
    assert MaskGenerator(proposer_of(sam), passing).generate(0, scenes[0]).num_masks >= 40, (
        "about half pass the predicted IoU"
    )


def test_threshold_above__share_in_the_widest_gap() -> None:
    scores = np.linspace(0.9, 0.1, 100)
    assert np.count_nonzero(scores > threshold_above(scores, 0.3)) in range(30, 36)
    scores[33:] -= 0.05
    assert threshold_above(scores, 0.3) == pytest.approx((scores[32] + scores[33]) / 2)
    assert threshold_above(scores, 1.0) == 0.0
    assert threshold_above(scores[:0], 0.5) == 0.0
