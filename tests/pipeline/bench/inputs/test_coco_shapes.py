import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from semires.pipeline.bench.inputs.coco_shapes import coco_masks
from semires.pipeline.bench.inputs.mask_files import RunLengthJson


def test_coco_masks__a_function_of_its_arguments() -> None:
    masks = coco_masks(3, num_masks=12, height=60, width=80)
    assert masks.shape == (12, 60, 80)
    assert masks.dtype == np.bool_
    assert masks.any(axis=(1, 2)).all()
    np.testing.assert_array_equal(masks, coco_masks(3, num_masks=12, height=60, width=80))
    assert not np.array_equal(masks, coco_masks(4, num_masks=12, height=60, width=80))


def test_coco_masks__very_different_sizes_and_nested_parts() -> None:
    masks = coco_masks(0, num_masks=40, height=240, width=320)
    areas = masks.sum(axis=(1, 2))
    assert areas.max() > 50 * np.quantile(areas, 0.1)
    inside = [(i, j) for i in range(40) for j in range(40) if areas[i] < areas[j] and not (masks[i] & ~masks[j]).any()]
    assert len({i for i, _ in inside}) >= 10


def test_coco_masks__take_what_sams_masks_took(tmp_path: Path) -> None:
    json_bytes, rle_bytes = [], []
    for seed in (1, 2):
        masks = coco_masks(seed)
        RunLengthJson(tmp_path, height=480, width=640).write(seed, masks)
        json_bytes.append((tmp_path / f"{seed}.json").stat().st_size)
        records = coco_mask.encode(np.asfortranarray(masks.transpose(1, 2, 0).view(np.uint8)))
        rle_bytes.append(sum(len(record["counts"]) for record in records))
        assert len(json.loads((tmp_path / f"{seed}.json").read_text())) == 100
    assert np.mean(json_bytes) == pytest.approx(79_000, rel=0.1)
    assert np.mean(rle_bytes) == pytest.approx(17_000, rel=0.1)
