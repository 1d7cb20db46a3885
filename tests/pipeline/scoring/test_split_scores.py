import json

import numpy as np
import pytest

from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.scoring.split_scores import split_scores

COUNTS = PixelCounts(
    image_ids=np.array([1, 1, 2, 3]), intersections=np.array([5, 10, 0, 9]), unions=np.array([10, 10, 4, 10])
)


def test_split_scores__by_hand() -> None:
    found = split_scores(COUNTS, {"some": np.array([True, False, False, True])})
    assert found["oiou"] == pytest.approx(100 * 24 / 34)
    assert found["miou"] == pytest.approx(100 * (0.5 + 1.0 + 0.0 + 0.9) / 4)
    assert found["precision"] == {"0.5": 75.0, "0.6": 50.0, "0.7": 50.0, "0.8": 50.0, "0.9": 50.0}
    assert found["num_samples"] == 4
    some = found["subsets"]["some"]
    assert (some["oiou"], some["miou"], some["num_samples"]) == (pytest.approx(70.0), pytest.approx(70.0), 2)
    assert some["precision"]["0.6"] == 50.0
    assert "subsets" not in some


def test_split_scores__intervals() -> None:
    found = split_scores(COUNTS, {"of one image": np.array([True, True, False, False])})
    for name in ("oiou", "miou"):
        low, high = found["intervals"][name]
        assert low < found[name] < high
    assert found["intervals"]["precision"]["0.5"] == [0.0, 100.0]  # image 2 alone has one below
    alone = found["subsets"]["of one image"]["intervals"]
    assert alone == {"oiou": None, "miou": None, "precision": dict.fromkeys(("0.5", "0.6", "0.7", "0.8", "0.9"))}
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_split_scores__an_empty_union_counts_nothing() -> None:
    counts = PixelCounts(image_ids=np.arange(3), intersections=np.array([0, 2, 2]), unions=np.array([0, 4, 4]))
    assert counts.ious.tolist() == [0.0, 0.5, 0.5]
    found = split_scores(counts, {})
    assert (found["oiou"], found["miou"]) == (50.0, pytest.approx(100 / 3))
    assert found["intervals"]["oiou"] == [50.0, 50.0]
