"""A RES model of the user's own: `--model PACKAGE.MODULE:FACTORY`.

The factory is called as `factory(pretrained=True)` where training starts and as `factory(pretrained=False)` where
weights are loaded over it, and returns a `ResModel`. docs/own-model.md shows a complete example.
"""

from typing import Any

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.data.files.factories import find_factory
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer


def model_of_factory(name: str, *, pretrained: bool) -> ResModel:
    """What the factory `name` makes, on CPU in training mode, tried out on an empty image.

    Modules are looked for in the working directory too, as `python -m` does. InputError where there is no such factory,
    or where what it returns cannot be trained; an exception of the user's own code is left as it is.
    """
    found = find_factory(name, "--model")(pretrained=pretrained)
    _check(name, found)
    found.factory = name
    return found.train()


def _check(name: str, model: Any) -> None:
    what = f"--model: expected {name} to return a ResModel"
    if not isinstance(model, ResModel):
        raise InputError(f"{what}, found {type(model).__name__}; derive it from semires' ResModel (docs/own-model.md)")
    size, tokenizer = getattr(model, "image_size", None), getattr(model, "tokenizer", None)
    if type(size) is not int or size < 1:
        raise InputError(f"{what} with image_size in pixels, found {size!r}; set it in its __init__")
    if not isinstance(tokenizer, Tokenizer):
        raise InputError(f"{what} with a Tokenizer, found {type(tokenizer).__name__}; set `tokenizer` in its __init__")
    with torch.no_grad():
        logits = model.eval()(torch.zeros(2, 3, size, size), *tokenizer(["one", "another one"]))
    if not isinstance(logits, Tensor) or logits.shape != (2, 2, size, size) or not logits.is_floating_point():
        shape = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"{what} with logits float {[2, 2, size, size]} of two {size} x {size} images, found {shape}")
