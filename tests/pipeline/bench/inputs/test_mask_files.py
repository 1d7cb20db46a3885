import json
from pathlib import Path

import numpy as np
import pytest

from semires.pipeline.bench.inputs.coco_shapes import coco_masks
from semires.pipeline.bench.inputs.mask_files import CocoRle, MaskFiles, Npy, RunLengthJson


@pytest.mark.parametrize("make", [lambda folder: RunLengthJson(folder, height=37, width=50), CocoRle, Npy])
def test_read__equals_what_was_written(make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    files: MaskFiles = make(tmp_path)
    masks = coco_masks(1, num_masks=5, height=37, width=50)
    masks[1] = False
    masks[2] = True
    files.write(7, masks)
    np.testing.assert_array_equal(files.read(7), masks)
    assert len(list(files.folder.iterdir())) == 1


def test_run_length_json__pairs_from_one_column_by_column(tmp_path: Path) -> None:
    mask = np.array([[False, True], [True, True], [True, False]])
    RunLengthJson(tmp_path, height=3, width=2).write(0, mask[None])
    assert json.loads((tmp_path / "0.json").read_text()) == [[2, 4]]
