from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.prediction import OVERLAY_COLOR, overlay, predict_logits, scaled_masks

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lavt(nano_config: Callable[..., TrainConfig]) -> Lavt:
    torch.manual_seed(0)
    model = nano_config().build_model(pretrained=False).eval()
    assert isinstance(model, Lavt)
    return model


def predict_mask(model: ResModel, image: NDArray[np.uint8], expression: str) -> NDArray[np.bool_]:
    logits = predict_logits(model, [(image, expression)], CPU)
    mask: NDArray[np.bool_] = scaled_masks(logits, *image.shape[:2])[0].numpy()
    return mask


class RightHalf(ResModel):
    """Always means the right half of the image."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        super().__init__()
        self.image_size, self.tokenizer = 96, tokenizer

    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        is_right = (torch.arange(width) >= width // 2).expand(len(images), height, width)
        return torch.stack([torch.zeros(is_right.shape), is_right.float() * 8 - 4], dim=1)


@pytest.mark.parametrize(("height", "width"), [(97, 131), (1, 1), (3, 500), (96, 96), (480, 7)])
def test_predict_mask__size_of_the_image(lavt: Lavt, height: int, width: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = predict_mask(lavt, image, "red circle")
    assert mask.shape == (height, width)
    assert mask.dtype == bool


def test_predict_mask__lies_where_the_model_says(tokenizer: Tokenizer) -> None:
    image = np.zeros((50, 200, 3), dtype=np.uint8)
    mask = predict_mask(RightHalf(tokenizer), image, "right")
    expected = np.zeros((50, 200), dtype=bool)
    expected[:, 100:] = True
    # Scaled up three times, the edge is a pixel or two off at most.
    assert (mask != expected).mean() <= 0.01


def test_predict_mask__at_training_size_is_the_models_argmax(lavt: Lavt, tokenizer: Tokenizer) -> None:
    image = np.random.default_rng(1).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    pixels = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    with torch.no_grad():
        logits = lavt(pixels, *tokenizer(["red circle"]))[0]
    mask = predict_mask(lavt, image, "red circle")
    assert (mask == (logits[1] > logits[0]).numpy()).all()


@pytest.mark.parametrize("expression", ["", "  ", "\t\n"])
def test_predict_mask__empty_expression_refused(lavt: Lavt, expression: str) -> None:
    with pytest.raises(InputError, match="found an empty one"):
        predict_mask(lavt, np.zeros((8, 8, 3), dtype=np.uint8), expression)


def test_overlay__tints_the_mask_draws_its_rim_and_dims_the_rest() -> None:
    image = np.full((9, 11, 3), (0, 200, 100), dtype=np.uint8)
    mask = np.zeros((9, 11), dtype=bool)
    mask[2:7, 3:8] = True
    picture = np.asarray(overlay(image, mask))
    assert picture.shape == image.shape
    rim = mask.copy()
    rim[3:6, 4:7] = False
    assert (picture[rim] == OVERLAY_COLOR).all()
    inside = np.round(np.array([0, 200, 100]) * 0.6 + np.array(OVERLAY_COLOR) * 0.4)
    assert (picture[mask & ~rim] == inside).all()
    outside = picture[~mask].astype(int)
    assert np.ptp(outside[0]) < 200  # closer to grey
    assert (outside == outside[0]).all()
    assert (image == (0, 200, 100)).all()  # the image itself is left alone


@pytest.mark.parametrize("value", [True, False])
def test_overlay__all_or_nothing(value: bool) -> None:
    image = np.full((4, 5, 3), 128, dtype=np.uint8)
    picture = np.asarray(overlay(image, np.full((4, 5), value)))
    # A mask that fills the image has its rim at the image's border.
    assert ((picture == OVERLAY_COLOR).all(axis=2).sum() == 14) == value
