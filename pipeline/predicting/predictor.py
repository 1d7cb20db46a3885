"""A predictor: a trained model, opened once, and what it makes of images and expressions.

predictor = Predictor.load()                  # the shipped model; or run="runs/x", model="folder or hub name"
(one,) = predictor.predict("picture.png", ["small red house"])
one.mask                                      # bool [H, W]
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.interface import ResModel
from semires.stages.train.prediction import predict_logits, scaled_logits
from semires.stages.train.run_folder import RunFolder

Picture: TypeAlias = str | Path | Image.Image | NDArray[np.uint8]
"""An image as `pixels_of` takes it: a file, a Pillow image, or RGB as uint8 [H, W, 3]."""

SHIPPED = "LAVT-nano, trained on RefShapes by SemiRES-CC with masks for 5%: drawn shapes, never a photograph"
"""What the model is that stands in where none is given."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """What an expression means in an image."""

    expression: str
    """What was asked for."""
    mask: NDArray[np.bool_]
    """bool [H, W], at the image's own size; nothing is set where nothing is meant."""
    probability: float
    """Mean probability of the referent over the mask, 0 to 1; 0 of an empty mask."""
    logits: Tensor = field(repr=False)
    """What the model said at its own size S, float32 [2, S, S] (background, referent), on the CPU."""

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(self.mask.sum())

    @cached_property
    def box_xywh(self) -> tuple[int, int, int, int]:
        """The smallest box around the mask, in pixels: x, y, width, height; zeros of an empty mask."""
        if not self.area:
            return 0, 0, 0, 0
        rows, columns = np.flatnonzero(self.mask.any(axis=1)), np.flatnonzero(self.mask.any(axis=0))
        x, y = int(columns[0]), int(rows[0])
        return x, y, int(columns[-1]) + 1 - x, int(rows[-1]) + 1 - y

    def with_mask(self, mask: NDArray[np.bool_]) -> "Prediction":
        """The same with another mask of the image, bool [H, W], and the model's mean probability over that one."""
        return replace(self, mask=mask, probability=_mean_probability(_margin(self.logits, *mask.shape), mask))

    def to_json(self) -> dict[str, Any]:
        """For a line of JSON: expression, size [H, W], mask as COCO's compressed run lengths, box_xywh, area, and
        probability."""
        runs = coco_mask.encode(np.asfortranarray(self.mask, dtype=np.uint8))
        return {
            "expression": self.expression,
            "size": [int(side) for side in self.mask.shape],
            "mask": {"size": [int(side) for side in runs["size"]], "counts": runs["counts"].decode("ascii")},
            "box_xywh": list(self.box_xywh),
            "area": self.area,
            "probability": round(self.probability, 6),
        }


class Predictor:
    """A trained model on its device, and the probability from which a pixel is in the mask.

    `threshold` 0.5 is the model's own decision, the higher of its two logits, as evaluation takes it. It is the one of
    every prediction that is not asked for with another.
    """

    def __init__(self, model: ResModel, device: torch.device | str = "cpu", *, threshold: float = 0.5) -> None:
        _check_threshold(threshold)
        self.device = torch.device(device)
        self.model = model.to(self.device).eval()
        self.threshold = threshold

    @classmethod
    def load(
        cls,
        *,
        run: str | Path | None = None,
        model: str | Path | None = None,
        device: torch.device | str | None = None,
        threshold: float = 0.5,
    ) -> "Predictor":
        """The best model of a `run`, or the `model` of a folder or a hub name; of neither the shipped one (`SHIPPED`).

        device: None for CUDA where there is one, else the CPU. InputError where both are given, or none can be had.
        """
        if run is not None and model is not None:
            raise InputError("expected --run or --model, found both; give one")
        if run is not None:
            opened = RunFolder(Path(run)).load_model()[1]
        else:
            opened = ResModel.from_pretrained(str(shipped_folder() if model is None else model))
        if device is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
        return cls(opened, device, threshold=threshold)

    def predict(self, image: Picture, expressions: Sequence[str], threshold: float | None = None) -> list[Prediction]:
        """What each of the expressions means in an image, as `pixels_of` takes it.

        threshold: None for the predictor's. InputError for what is no image, for an empty expression, and for a
        threshold that is no probability between 0 and 1.
        """
        pixels = pixels_of(image)
        return self.predict_batch([(pixels, expression) for expression in expressions], threshold)

    def predict_batch(
        self, pairs: Sequence[tuple[NDArray[np.uint8], str]], threshold: float | None = None
    ) -> list[Prediction]:
        """What the expression of each pair means in its image, uint8 [H, W, 3] of any size; one pass for all. The rest
        as of `predict`."""
        threshold = self.threshold if threshold is None else threshold
        _check_threshold(threshold)
        if not pairs:
            return []
        found = predict_logits(self.model, pairs, self.device)
        # One by one: logits at the size of photographs are large, and of one image at a time they are little.
        return [
            decide(expression, logits, image.shape[:2], threshold)
            for (image, expression), logits in zip(pairs, found, strict=True)
        ]


def shipped_folder() -> Path:
    """The folder of the model that comes with the package; InputError where the package came without."""
    folder = weights_folder() / "refshapes"
    if not folder.is_dir():
        raise InputError(
            f"expected the shipped model, found no {folder}: give --run or --model, or install semires with its weights"
        )
    return folder


def _check_threshold(threshold: float) -> None:
    if not 0 < threshold < 1:
        raise InputError(f"threshold: expected a probability between 0 and 1, found {threshold}; the default is 0.5")


def decide(expression: str, logits: Tensor, size: tuple[int, ...], threshold: float) -> Prediction:
    """What a model's logits, float32 [2, S, S] (background, referent), mean in an image of `size`, (H, W)."""
    margin = _margin(logits, *size)
    mask = (margin > math.log(threshold / (1 - threshold))).cpu().numpy()
    probability = _mean_probability(margin, mask)
    return Prediction(expression=expression, mask=mask, probability=probability, logits=logits.cpu())


def _margin(logits: Tensor, height: int, width: int) -> Tensor:
    """How much the referent's logit is above the background's, float32 [H, W], of logits [2, S, S]."""
    background, referent = scaled_logits(logits[None], height, width)[0]
    return referent - background


def _mean_probability(margin: Tensor, mask: NDArray[np.bool_]) -> float:
    within = margin[torch.from_numpy(mask).to(margin.device)]
    return float(within.sigmoid().mean()) if len(within) else 0.0


def pixels_of(image: Picture) -> NDArray[np.uint8]:
    """The RGB of an image, uint8 [H, W, 3]: of a file, which is turned upright by its EXIF orientation, a Pillow image,
    or such an array itself. InputError for what is no image."""
    if isinstance(image, str | Path):
        return load_image(image, upright=True)
    if isinstance(image, Image.Image):
        return np.asarray(image.convert("RGB"))
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise InputError(
            f"expected an RGB image uint8 [H, W, 3], found {image.dtype} {list(image.shape)}: convert it, for instance "
            "by PIL.Image.fromarray(...).convert('RGB')"
        )
    return image
