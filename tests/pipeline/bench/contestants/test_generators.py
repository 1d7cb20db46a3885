from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from semires.pipeline.bench.contestants.generators import SAMS_OWN, Contestant, network_milliseconds, resident_memory
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam, weights_path

FEW = GeneratorSettings(points_per_side=2, pred_iou_thresh=0.5, stability_score_thresh=0.5)
IMAGE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)


def test_contestant__names() -> None:
    contestants = [
        Contestant(precision=None),
        Contestant(precision="fp32"),
        Contestant(precision="bf16", compiled=True),
    ]
    assert [each.name for each in contestants] == [SAMS_OWN, "semires, fp32", "semires, bf16, compiled"]


def test_contestant__sams_own_survives_no_mask() -> None:
    generator = Contestant(precision=None).build(build_tiny_sam(weights_path()), replace(FEW, pred_iou_thresh=1.0))
    assert generator.generate(IMAGE) == []


def test_network_milliseconds__only_inside() -> None:
    sam = build_tiny_sam(weights_path())
    generator = Contestant(precision=None).build(sam, FEW)
    with network_milliseconds(generator) as spent:
        generator.generate(IMAGE)
    inside = dict(spent)
    assert set(inside) == {"encode", "decode"}
    assert min(inside.values()) > 0
    generator.generate(IMAGE)
    assert spent == inside


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="elsewhere a peak cannot be forgotten")
def test_resident_memory__counts_what_generating_takes(tmp_path: Path) -> None:
    torch.save(build_tiny_sam(weights_path()), tmp_path / "sam.pt")
    # Three masks of every prompt at 1000x1000 in float32 alone are 48 MB, which SAM's generator holds at once.
    large = np.zeros((1000, 1000, 3), dtype=np.uint8)
    taken = resident_memory(Contestant(precision=None), tmp_path / "sam.pt", FEW, large)
    assert 48 < taken < 1000
