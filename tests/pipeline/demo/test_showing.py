from dataclasses import replace

import numpy as np
import pytest

from semires.cache.bits import pack_rows
from semires.cache.candidates import Candidates
from semires.pipeline.demo import showing
from semires.pipeline.demo.showing import Showing
from semires.pipeline.predicting.predictor import Predictor
from semires.stages.train.matching.config import MatchConfig


def candidates_of(height: int, width: int) -> Candidates:
    """Two rectangles, one within the other, the smaller first."""
    masks = np.zeros((2, height, width), np.bool_)
    masks[0, height // 4 : height // 2, width // 4 : width // 2] = True
    masks[1, height // 8 :, width // 8 :] = True
    return Candidates(
        image_id=0,
        height=height,
        width=width,
        bits=pack_rows(masks),
        area=masks.sum((1, 2)).astype(np.int32),
        boxes_xyxy=np.zeros((2, 4), np.int32),
        predicted_iou=np.ones(2, np.float32),
        stability_score=np.ones(2, np.float32),
        points_xy=np.zeros((2, 2), np.float32),
    )


@pytest.mark.parametrize(
    ("size", "shown"), [((96, 128), (640, 480)), ((1500, 3000), (1280, 640)), ((3000, 2), (1, 1280))]
)
def test_show__pictures_of_the_size_of_a_screen(
    size: tuple[int, int], shown: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small ones are enlarged, photographs reduced; what is counted is of the whole picture."""
    asked, drawn = list[object](), list[object]()
    original = showing._all_drawn

    def all_drawn(small: np.ndarray, candidates: Candidates) -> object:
        drawn.append(small.shape)
        return original(small, candidates)

    monkeypatch.setattr(showing, "_all_drawn", all_drawn)

    def propose(image: np.ndarray) -> Candidates:
        asked.append(image.shape)
        return candidates_of(*size)

    page = Showing(Predictor.load(), propose)
    image = np.random.default_rng(0).integers(0, 255, (*size, 3), dtype=np.uint8)
    for threshold in (0.5, 1e-30):
        found = page.show(image, "red ball", threshold=threshold, config=replace(MatchConfig(), inter1=0.0))
        for picture in (found.mask, found.candidates, found.refined):
            assert picture.size == shown
    assert "The model's mask: 100.0% of the picture" in found.words
    assert "2 candidates: " in found.words
    assert len(asked) == len(drawn) == 1  # moving a threshold takes no second look
