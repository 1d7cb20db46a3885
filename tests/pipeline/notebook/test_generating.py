from pathlib import Path

import numpy as np
import pytest
import torch

from semires.pipeline.notebook.generating import MaskGenerator
from semires.stages.cache_sam.generator import mask_generator
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import load_sam
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset


def test_from_pretrained__is_the_generator_of_stage_one(refshapes: ReferDataset) -> None:
    loaded = load_sam("tiny", None, torch.device("cpu"))
    plain = mask_generator.MaskGenerator(proposer_of(loaded.sam), GENERATOR_SETTINGS)
    image_id = refshapes.image_ids[0]
    expected = plain.generate(image_id, refshapes.image(image_id))
    found = MaskGenerator.from_pretrained("tiny", device="cpu")(refshapes.image_path(image_id))
    assert expected.num_masks > 0
    assert (found.image_id, found.num_masks) == (0, expected.num_masks)
    assert np.array_equal(found.bits, expected.bits)
    assert np.array_equal(found.predicted_iou, expected.predicted_iou)


def test_from_pretrained__settings_and_what_is_refused(tmp_path: Path) -> None:
    pixels = np.zeros((16, 16, 3), np.uint8)
    kept = MaskGenerator.from_pretrained(points_per_side=1, pred_iou_thresh=0, stability_score_thresh=0)(pixels)
    assert 0 < kept.num_masks <= 3
    with pytest.raises(InputError, match="points_per_side: expected 1 or more"):
        MaskGenerator.from_pretrained(points_per_side=0)
    with pytest.raises(InputError, match="expected a file, found nothing"):
        MaskGenerator.from_pretrained("vit_b", tmp_path / "none.pth")
    with pytest.raises(InputError, match="expected a device of this machine"):
        MaskGenerator.from_pretrained(device="gpu")
