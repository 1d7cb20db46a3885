from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semires.pipeline.predicting.answering import answers
from semires.pipeline.predicting.predictor import Predictor
from semires.pipeline.predicting.tasks import Task
from semires.stages.data.errors import InputError
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt")


class Ramp(ResModel):
    """The referent is the surer the further to the right; where an expression has more words, in more rows."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.image_size, self.tokenizer, self.sizes = 32, tokenizer, list[int]()

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        self.sizes.append(len(images))
        ramp = torch.linspace(-4, 4, 32).expand(len(images), 32, 32).clone()
        for one, words in zip(ramp, attention_mask.sum(dim=1).tolist(), strict=True):
            one[int(words) * 2 :] = -8
        return torch.stack([torch.zeros_like(ramp), ramp], dim=1)


def test_predict__mask_box_and_probability(tokenizer: Tokenizer) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    (one,) = Predictor(Ramp(tokenizer)).predict(image, ["red"])
    rows = int(tokenizer(["red"])[1].sum()) * 2
    assert one.box_xywh == (16, 0, 16, rows)
    assert one.area == 16 * rows == one.to_json()["area"]
    assert one.probability == pytest.approx(torch.linspace(-4, 4, 32)[16:].sigmoid().mean().item(), abs=1e-6)
    (sure,) = Predictor(Ramp(tokenizer), threshold=0.95).predict(image, ["red"])
    assert sure.area < one.area
    assert sure.probability > 0.95
    (nothing,) = Predictor(Ramp(tokenizer), threshold=0.999).predict(image, ["red"])
    assert (nothing.area, nothing.box_xywh, nothing.probability) == (0, (0, 0, 0, 0), 0.0)


def test_predict__images_of_any_kind(tokenizer: Tokenizer, tmp_path: Path) -> None:
    predictor = Predictor(Ramp(tokenizer))
    pixels = np.random.default_rng(0).integers(0, 256, (20, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "x.png")
    picture = Image.fromarray(pixels).convert("RGBA")
    masks = [predictor.predict(image, ["red"])[0].mask for image in (pixels, tmp_path / "x.png", picture)]
    assert masks[0].shape == (20, 50)
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])
    for image in (pixels.astype(np.float32), pixels[..., 0], pixels[:0]):
        with pytest.raises(InputError, match=r"expected an RGB image uint8 \[H, W, 3\]"):
            predictor.predict(image, ["red"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="found an empty one"):
        predictor.predict(pixels, ["red", " "])


def test_answers__in_order_and_in_batches_over_images(tokenizer: Tokenizer, tmp_path: Path) -> None:
    tasks = []
    for number, size in enumerate([(30, 20), (10, 40), (5, 5)]):
        Image.new("RGB", size).save(tmp_path / f"{number}.png")
        tasks.append(Task(image=tmp_path / f"{number}.png", expressions=("red", "red circle")))
    (tmp_path / "bad.png").write_text("no picture")
    tasks.insert(1, Task(image=tmp_path / "bad.png", expressions=("red", "blue")))
    model = Ramp(tokenizer)
    found = list(answers(Predictor(model), tasks, batch_size=3))
    assert [(one.image.source.path.name, one.expression) for one in found] == [
        *(("0.png", "red"), ("0.png", "red circle"), ("bad.png", "red")),
        *((f"{number}.png", text) for number in (1, 2) for text in ("red", "red circle")),
    ]
    assert model.sizes == [2, 3, 1]
    assert found[2].prediction is None
    for one in found[:2] + found[3:]:
        assert one.prediction is not None
        (alone,) = Predictor(model).predict(one.image.source.path, [one.expression])
        np.testing.assert_array_equal(one.prediction.mask, alone.mask)
