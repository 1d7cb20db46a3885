import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from semires.pipeline.predicting import answering
from semires.pipeline.predicting import predictor as predictor_module
from semires.pipeline.predicting.answering import answers
from semires.pipeline.predicting.predictor import SHIPPED, Predictor, shipped_folder
from semires.pipeline.predicting.tasks import Task
from semires.stages.data.errors import InputError
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer

ROOT = Path(__file__).parents[3]


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


def test_predict__a_threshold_for_one_call(tokenizer: Tokenizer) -> None:
    image = np.zeros((32, 32, 3), np.uint8)
    predictor, sure = Predictor(Ramp(tokenizer)), Predictor(Ramp(tokenizer), threshold=0.95)
    np.testing.assert_array_equal(predictor.predict(image, ["red"], 0.95)[0].mask, sure.predict(image, ["red"])[0].mask)
    assert predictor.predict(image, ["red"])[0].area > sure.predict(image, ["red"])[0].area
    for threshold in (0.0, 1.0, float("nan")):
        with pytest.raises(InputError, match="expected a probability between 0 and 1"):
            predictor.predict(image, ["red"], threshold)
    assert predictor.predict(image, []) == []


def test_with_mask__the_probability_is_of_the_new_mask(tokenizer: Tokenizer) -> None:
    (one,) = Predictor(Ramp(tokenizer)).predict(np.zeros((32, 32, 3), np.uint8), ["red"])
    assert one.area > 0  # and its area and box, once computed, are not the new one's
    corner = np.zeros((32, 32), np.bool_)
    corner[:2, :8] = True
    other = one.with_mask(corner)
    assert (other.area, other.box_xywh, other.expression) == (16, (0, 0, 8, 2), "red")
    assert other.probability == pytest.approx(torch.linspace(-4, 4, 32)[:8].sigmoid().mean().item(), abs=1e-6)
    assert one.with_mask(one.mask).probability == one.probability
    assert one.with_mask(np.zeros_like(corner)).probability == 0


def test_load__the_shipped_model_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line that says so, and no question to the hub."""
    monkeypatch.setattr(predictor_module, "weights_folder", lambda: tmp_path)
    with pytest.raises(InputError, match=r"^expected the shipped model, found no .*refshapes: give --run or --model"):
        Predictor.load()


def test_shipped_folder__is_in_the_package() -> None:
    """Every file of it is package data, and what it says of itself is what the command says."""
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]
    patterns, models = setuptools["package-data"]["semires.stages.train.models"], weights_folder().parent
    listed = {path for pattern in patterns for path in models.glob(pattern)}
    files = [path for path in (weights_folder() / "refshapes").rglob("*") if path.is_file()]
    assert {"README.md", "config.json", "model.safetensors"} <= {path.name for path in files}
    assert listed.issuperset(files)
    card = (shipped_folder() / "README.md").read_text(encoding="utf-8")
    for words in ("LAVT-nano", "SemiRES-CC", "masks for 5%", "RefShapes"):
        assert words in card
        assert words in SHIPPED


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


def test_answers__in_order_and_in_batches_over_images(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    # Large images are not waited for, but all expressions about one are computed together.
    monkeypatch.setattr(answering, "MAX_PIXELS", 700)
    model.sizes.clear()
    again = list(answers(Predictor(model), tasks, batch_size=3))
    assert model.sizes == [2, 3, 1]  # 600 pixels; 400 and 25 of the two others
    monkeypatch.setattr(answering, "MAX_PIXELS", 1)
    model.sizes.clear()
    again += answers(Predictor(model), tasks, batch_size=3)
    assert model.sizes == [2, 2, 2]
    assert [one.expression for one in again] == 2 * [one.expression for one in found]
    assert found[2].prediction is None
    for one in found[:2] + found[3:]:
        assert one.prediction is not None
        (alone,) = Predictor(model).predict(one.image.source.path, [one.expression])
        np.testing.assert_array_equal(one.prediction.mask, alone.mask)
