"""A RES model of the user's own: `--model PACKAGE.MODULE:FACTORY`.

The factory is called as `factory(pretrained=True)` where training starts and as `factory(pretrained=False)` where
weights are loaded over it, and returns a `ResModel`. docs/own-model.md shows a complete example.
"""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.tokenization import Tokenizer


def is_factory(name: str) -> bool:
    """Whether a model's name is that of a factory."""
    return ":" in name


def model_of_factory(name: str, *, pretrained: bool) -> ResModel:
    """What the factory `name` makes, on CPU in training mode, tried out on an empty image.

    Modules are looked for in the working directory too, as `python -m` does. InputError where there is no such factory,
    or where what it returns cannot be trained; an exception of the user's own code is left as it is.
    """
    found = _find(name)(pretrained=pretrained)
    _check(name, found)
    found.factory = name
    return found.train()


def _find(name: str) -> Callable[..., Any]:
    module_name, _, attribute = name.partition(":")
    if not module_name or not attribute:
        raise InputError(f"--model: expected PACKAGE.MODULE:FACTORY, found {name!r}; name both")
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        # A module that is there and imports one that is not says so itself.
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise InputError(
            f"--model: expected a module {module_name}, found none; run the command in the folder that holds it, or "
            "install it"
        ) from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        raise InputError(f"--model: expected a function {attribute!r} in {module.__file__}, found none; check the name")
    found: Callable[..., Any] = factory
    return found


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
