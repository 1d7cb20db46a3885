from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from semires.pipeline.bench import predict as bench
from semires.pipeline.bench.predict import PLAIN, PredictBenchConfig, bench_predict
from semires.stages.data.errors import InputError


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    return tmp_path


def test_bench_predict__a_row_for_each_contestant(photos: Path) -> None:
    config = PredictBenchConfig(images=photos, num_images=2, num_expressions=2, batch_size=3, repeats=1)
    found = bench_predict(config)
    assert [row["contestant"] for row in found.rows] == [
        *(PLAIN, "semires, read ahead, no batches", "semires, read ahead, batches of 3")
    ]
    assert found.rows[0]["ratio"] == 1
    for row in found.rows:
        images, masks, ms, ratio = list(row.values())[1:]
        assert isinstance(images, float)
        assert masks == 2 * images
        assert isinstance(ms, float)
        assert abs(ms * images * 2 - 1000) < 1e-6
        assert isinstance(ratio, float)
        assert ratio > 0
    assert found.notes[0].startswith("2 photographs, 2 expressions each; Lavt at 96x96, on cpu; median of 1 rounds")
    assert "of 4 masks are not empty; of all pixels 0 differ" in found.notes[2]


def test_bench_predict__scenes_where_no_photographs_are_given(tmp_path: Path) -> None:
    paths = bench._image_files(PredictBenchConfig(num_images=2), tmp_path)
    sizes = []
    for path in paths:
        with Image.open(path) as image:
            sizes.append((image.format, image.size))
    assert sizes == [("JPEG", (640, 480))] * 2


def test_bench_predict__other_masks_are_not_timed(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "TOLERANCE", -1.0)
    with pytest.raises(RuntimeError, match="expected equal masks of all contestants"):
        bench_predict(PredictBenchConfig(images=photos, num_images=1, num_expressions=1, repeats=1))


def test_bench_predict__refused(photos: Path) -> None:
    for number in (0, 5):
        with pytest.raises(InputError, match=f"--expressions: expected 1 to 4, found {number}"):
            PredictBenchConfig(num_expressions=number)
    (photos / "0.png").write_text("no image")
    with pytest.raises(InputError, match=r"0\.png: expected an image"):
        bench_predict(PredictBenchConfig(images=photos))
