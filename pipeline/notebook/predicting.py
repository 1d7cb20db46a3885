"""What expressions mean in one picture."""

import functools
import logging
from pathlib import Path
from typing import overload

import numpy as np
import torch
from numpy.typing import NDArray

from semires.pipeline.predicting.predictor import SHIPPED, Picture, Predictor
from semires.pipeline.running.stage_runs import choose_device
from semires.pipeline.trained import is_run
from semires.stages.train.models.interface import ResModel

Model = str | Path | ResModel | None


@overload
def predict(
    image: Picture, expressions: str, model: Model = None, *, device: str | torch.device | None = None
) -> NDArray[np.bool_]: ...


@overload
def predict(
    image: Picture,
    expressions: list[str] | tuple[str, ...],
    model: Model = None,
    *,
    device: str | torch.device | None = None,
) -> list[NDArray[np.bool_]]: ...


def predict(
    image: Picture,
    expressions: str | list[str] | tuple[str, ...],
    model: Model = None,
    *,
    device: str | torch.device | None = None,
) -> NDArray[np.bool_] | list[NDArray[np.bool_]]:
    """The mask of what an expression means in a picture, bool [H, W] at the picture's size; of several a list.

    >>> import semires
    >>> semires.predict("data/refshapes/images/val_000000.png", "left ball").shape
    (96, 128)
    >>> masks = semires.predict("data/refshapes/images/val_000000.png", ["left ball", "tree"], model="model")
    >>> [mask.dtype.name for mask in masks]
    ['bool', 'bool']

    image: a path, an image of Pillow's, or RGB as uint8 [H, W, 3]. model: a run's folder, a model's folder or hub name,
    or a model such as `Lavt.from_pretrained` opens; a name is opened anew at each call. None is the shipped model, that
    knows RefShapes' drawn shapes and nothing else, as the logger "semires" warns once. device: None for CUDA where
    there is one, else the CPU. Of many pictures, and for probabilities and boxes,
    `semires.pipeline.predicting.predictor.Predictor` is the tool.

    InputError for what is no picture, an empty expression, and a model that cannot be had.
    """
    chosen = choose_device(None if device is None else str(device))
    predictor = _shipped(chosen) if model is None else _opened(model, chosen)
    found = [
        one.mask for one in predictor.predict(image, [expressions] if isinstance(expressions, str) else expressions)
    ]
    return found[0] if isinstance(expressions, str) else found


@functools.cache
def _shipped(device: torch.device) -> Predictor:
    # Once, as transformers says of the models that it chooses: of a photograph these masks mean nothing.
    logging.getLogger("semires").warning("no model was given, so the shipped one answers: %s; others: model=…", SHIPPED)
    return Predictor.load(device=device)


def _opened(model: str | Path | ResModel, device: torch.device) -> Predictor:
    if isinstance(model, ResModel):
        return Predictor(model, device)
    return (
        Predictor.load(run=model, device=device) if is_run(Path(model)) else Predictor.load(model=model, device=device)
    )
