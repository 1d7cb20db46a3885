from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.cache.errors import StoreError
from semires.cache.interchange import label_pngs
from semires.cache.interchange.importing import ImportReport
from semires.cache.reader import CandidateStore

ImportFrom = Callable[..., tuple[ImportReport, CandidateStore]]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_import__a_mask_a_value(tmp_path: Path, import_from: ImportFrom, dtype: type[np.unsignedinteger]) -> None:
    labels = np.random.default_rng(0).integers(0, 4, (6, 13)).astype(dtype)
    labels *= 60 if dtype is np.uint8 else 20_000
    (tmp_path / "labels").mkdir()
    Image.fromarray(labels).save(tmp_path / "labels" / "7.png")
    Image.fromarray(labels * 0).save(tmp_path / "labels" / "8.PNG", format="PNG")
    report, store = import_from(tmp_path / "labels", "labels")
    assert report == ImportReport(num_present=0, num_added=2, num_masks=3)
    np.testing.assert_array_equal(store[7].masks(), [labels == value for value in np.unique(labels)[1:]])
    assert np.isnan(store[7].predicted_iou).all()
    assert (store[8].num_masks, store[8].height, store[8].width) == (0, 6, 13)


def test_import__a_photograph(tmp_path: Path, import_from: ImportFrom, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_pngs, "MAX_LABELS", 20)
    pixels = np.random.default_rng(0).integers(0, 256, (6, 13, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "7.png")
    with pytest.raises(StoreError, match=r"7\.png: expected at most 20 labels, found 78; give images whose values are"):
        import_from(tmp_path / "7.png", "labels")
    assert not (tmp_path / "store.zarr").exists()
