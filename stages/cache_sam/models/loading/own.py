"""A proposer of the user's own: `--sam PACKAGE.MODULE:FACTORY`.

The factory is called as `factory(device)` with a torch.device and returns a `Proposer`. docs/own-proposer.md shows a
complete example.
"""

import functools
import hashlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from semires.stages.cache_sam.generator.proposer import Proposer
from semires.stages.cache_sam.generator.settings import PRECISIONS
from semires.stages.data.errors import InputError
from semires.stages.data.files.factories import find_factory

_SIZE = (48, 64)  # of the grey image that a proposer is tried out on


def load_own(name: str, device: torch.device) -> tuple[Proposer, str]:
    """What the factory `name` makes, and the sha256 that a store records of it, hexadecimal.

    The proposer is tried out on a grey image with two points. The digest is of the file with the factory's source and,
    where the proposer has a `sha256`, of that text behind it: weights are in no digest of a source. InputError where
    there is no such factory or what it returns is no `Proposer`; an exception of the user's own code is left as it is.
    """
    factory = find_factory(name, "--sam")
    proposer = factory(device)
    _check(name, proposer, device)
    return proposer, _digest(name, factory, proposer)


def _digest(name: str, factory: Callable[..., Any], proposer: Proposer) -> str:
    while isinstance(factory, functools.partial):
        factory = factory.func
    try:
        path = inspect.getsourcefile(inspect.unwrap(factory))
    except TypeError:  # built in, or an object that is called
        path = getattr(sys.modules[name.partition(":")[0]], "__file__", None)
    if path is None or not Path(path).is_file():
        raise InputError(f"--sam: expected {name} in a file, whose sha256 is recorded, found none; write it to one")
    digest = hashlib.sha256(Path(path).read_bytes())
    of_weights = getattr(proposer, "sha256", "")
    if not isinstance(of_weights, str):
        raise InputError(
            f"--sam: expected {name} to return a Proposer with sha256 as text, found {type(of_weights).__name__}; give "
            "the hexadecimal digest of its weights, or leave it out"
        )
    digest.update(of_weights.encode())
    return digest.hexdigest()


def _check(name: str, proposer: Any, device: torch.device) -> None:
    what = f"--sam: expected {name} to return a Proposer"
    if not isinstance(proposer, Proposer):
        raise InputError(
            f"{what}, found {type(proposer).__name__}; derive it from semires' Proposer (docs/own-proposer.md)"
        )
    for attribute in ("side", "low_side", "bytes_a_prompt"):
        found = getattr(proposer, attribute, None)
        if type(found) is not int or found < 1:
            raise InputError(f"{what} with {attribute} a whole number from 1 on, found {found!r}; set it in its class")
    if getattr(proposer, "precision", None) not in PRECISIONS:
        raise InputError(
            f"{what} with precision {', '.join(PRECISIONS)}, found {getattr(proposer, 'precision', None)!r}; set it in "
            "its class"
        )
    found_device = getattr(proposer, "device", None)
    if not isinstance(found_device, torch.device) or found_device.type != device.type:
        raise InputError(f"{what} on {device}, found {found_device}; set `device` to what the factory is given")
    with torch.inference_mode():
        _try_out(what, proposer)


def _try_out(what: str, proposer: Proposer) -> None:
    """Two points of an image go the generator's way; what has another shape than the next step takes is named."""
    side, low_side = proposer.side, proposer.low_side
    pixels = proposer.load([np.full((*_SIZE, 3), 127, dtype=np.uint8)])
    _expect(what, "load", pixels, (1, 3, side, side))
    embedding = proposer.encode(pixels)
    _expect_rows(what, "encode", embedding, 1)
    shared = proposer.share(tuple(part[0] for part in embedding))
    points_xy = torch.tensor([[16.0, 12.0], [48.0, 36.0]], dtype=torch.float64, device=proposer.device)
    tokens = proposer.embed(points_xy, _SIZE)
    _expect_rows(what, "embed", tokens, len(points_xy))
    decoded = proposer.decode(shared, *tokens)
    iou = getattr(decoded, "iou", None)
    masks = iou.shape[-1] if isinstance(iou, Tensor) and iou.ndim == 2 and iou.shape[-1] > 0 else 1
    _expect(what, "decode(...).iou", iou, (len(points_xy), masks))
    every = torch.cartesian_prod(torch.arange(len(points_xy)), torch.arange(masks))
    logits = proposer.logits(shared, decoded, every, (low_side, low_side))
    _expect(what, "logits", logits, (len(every), low_side, low_side))


def _expect(what: str, step: str, found: Any, shape: tuple[int, ...]) -> None:
    if not isinstance(found, Tensor) or found.dtype != torch.float32 or tuple(found.shape) != shape:
        raise InputError(
            f"{what} whose {step} gives torch.float32 {list(shape)}, found {_text(found)}; see docs/own-proposer.md"
        )


def _expect_rows(what: str, step: str, found: Any, count: int) -> None:
    """A tuple of tensors, each with `count` rows."""
    is_tuple = isinstance(found, tuple) and len(found) > 0
    if not is_tuple or not all(isinstance(part, Tensor) and part.shape[:1] == (count,) for part in found):
        text = ", ".join(map(_text, found)) if is_tuple else _text(found)
        raise InputError(
            f"{what} whose {step} gives a tuple of tensors of {count} rows, found {text}; see docs/own-proposer.md"
        )


def _text(found: Any) -> str:
    return f"{found.dtype} {list(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
