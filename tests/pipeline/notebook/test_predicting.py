from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from semires.pipeline.notebook import predicting
from semires.pipeline.notebook.predicting import predict
from semires.pipeline.predicting.predictor import SHIPPED, Predictor
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.models.interface import ResModel


def test_predict__the_shipped_model_finds_shapes_it_has_not_seen(refshapes: ReferDataset) -> None:
    """They are val's, whose masks it did not learn from."""
    ious = []
    for ref in refshapes.refs_of("val"):
        found, truth = predict(refshapes.image_path(ref.image_id), ref.expressions[0]), refshapes.mask(ref)
        assert found.shape == truth.shape
        ious.append((found & truth).sum() / (found | truth).sum())
    assert np.median(ious) > 0.5


def test_predict__says_once_what_the_shipped_model_knows(
    refshapes: ReferDataset, caplog: pytest.LogCaptureFixture
) -> None:
    predicting._shipped.cache_clear()
    pixels = refshapes.image(refshapes.image_ids[0])
    predict(pixels, "tree", Predictor.load().model)
    assert not caplog.records
    for expression in ("tree", "ball"):
        predict(pixels, expression)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("semires", "WARNING")
    assert SHIPPED in record.getMessage()


def test_predict__one_or_several_as_the_predictor_does(refshapes: ReferDataset) -> None:
    pixels = refshapes.image(refshapes.image_ids[0])
    expected = Predictor.load().predict(pixels, ["left ball", "tree"])
    found = predict(pixels, ["left ball", "tree"], device="cpu")
    assert all(np.array_equal(mask, one.mask) for mask, one in zip(found, expected, strict=True))
    assert np.array_equal(predict(pixels, "tree"), predict(pixels, ["tree"])[0])
    assert predict(pixels, []) == []


def test_predict__a_model_or_its_folder(refshapes: ReferDataset, tmp_path: Path) -> None:
    pixels = refshapes.image(refshapes.image_ids[0])
    model = Predictor.load().model
    model.save_pretrained(tmp_path / "model")
    expected = predict(pixels, "tree")
    assert isinstance(model, ResModel)
    assert np.array_equal(predict(pixels, "tree", model), expected)
    assert np.array_equal(predict(pixels, "tree", tmp_path / "model"), expected)


@pytest.mark.parametrize(
    ("refused", "text"),
    [
        (lambda: predict(np.zeros((4, 4, 3), np.uint8), " "), "expected an expression"),
        (lambda: predict("nowhere.png", "tree"), "nowhere.png: expected an image file"),
        (lambda: predict(np.zeros((4, 4, 3), np.uint8), "tree", "./nowhere"), "nowhere"),
    ],
)
def test_predict__refuses(refused: Callable[[], object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        refused()
