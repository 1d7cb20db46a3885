"""Checkpoint files that `torch.save` wrote: LAVT's and SemiRES' in two layouts, Microsoft's Swin.

LAVT (yz93/LAVT-RIS, `train.py`) and SemiRES save `{model, bert_model, optimizer, lr_scheduler, epoch, args}`; with
`--model lavt_one` BERT is in `model`, as `text_encoder`. Microsoft's Swin is `{model}`. A file is data and nothing
else: tensors, numbers, text and containers of them are read, of Python's classes `argparse.Namespace` only.
"""

import argparse
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import first_few

Layout = Literal["lavt", "lavt-one", "swin"]
WHAT = "a checkpoint of LAVT, SemiRES or Swin that torch.save wrote"
USED = ("model", "bert_model", "epoch", "args")
BERT_PREFIX = "text_encoder."
PARALLEL_PREFIX = "module."


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What is used of a checkpoint file."""

    path: Path
    layout: Layout
    """lavt: model and BERT apart; lavt-one: both in one; swin: Microsoft's Swin."""
    tensors: dict[str, Tensor]
    """By the names of `lavt_one` (BERT's begin with `text_encoder.`) or of Swin, without DistributedDataParallel's
    `module.`; on the CPU, possibly mapped from the file."""
    arguments: dict[str, Any]
    """The command line that trained it, {} where the file does not tell."""
    epoch: int | None
    """The epoch that it was saved after, from 0; None where the file does not tell."""
    unused: tuple[str, ...]
    """Entries of the file that nothing here is made of, such as `optimizer`."""


def read_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """Read a checkpoint file of any of the layouts above; a bare state dict of the same keys is one too.

    InputError where the file is missing, damaged or of another kind, and where reading it would run code.
    """
    path = Path(path)
    content = _load(path)
    if not isinstance(content, Mapping):
        raise InputError(f"expected {WHAT}, found a {type(content).__name__} in {path}: check the path")
    is_bare = not isinstance(content.get("model"), Mapping)
    model = _state_dict(path, content if is_bare else content["model"])
    bert = None if is_bare else content.get("bert_model")
    layout = _layout(path, model)
    if bert is not None:
        if layout != "lavt-one" or any(name.startswith(BERT_PREFIX) for name in model):
            raise InputError(f"expected `model` without BERT beside `bert_model`, found both in {path}: remove one")
        model |= {BERT_PREFIX + name: tensor for name, tensor in _state_dict(path, bert).items()}
        layout = "lavt"
    arguments = {} if is_bare else content.get("args")
    epoch = None if is_bare else content.get("epoch")
    return Checkpoint(
        path=path,
        layout=layout,
        tensors=model,
        arguments=vars(arguments) if isinstance(arguments, argparse.Namespace) else {},
        epoch=epoch if type(epoch) is int else None,
        unused=() if is_bare else tuple(str(name) for name in content if name not in USED),
    )


def _load(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"expected {WHAT}, found no file at {path}: check the path")
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals([argparse.Namespace]):
            warnings.simplefilter("ignore")  # of pickles that torch did not write; they are refused below
            # Mapped: an optimizer's state, twice the weights, is then never read.
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except Exception as error:  # what a damaged file raises differs between formats and versions of torch
        text = " ".join(str(error).split())
        refused = re.search(r"(?:GLOBAL|class) ([\w.]+)", text)
        if isinstance(error, pickle.UnpicklingError) and refused is not None:
            raise InputError(
                f"expected tensors, numbers and text in {path}, found the Python object {refused[1]}, which was not "
                "run: save the file anew with its state dicts alone, or get it from a source you trust"
            ) from error
        # torch's advice for what it refuses is to run it all the same.
        reason = "" if isinstance(error, pickle.UnpicklingError) else f" ({type(error).__name__}: {text[:120]})"
        raise InputError(
            f"expected {WHAT}, found a damaged or other file at {path}{reason}: check the path, or get it again"
        ) from error


def _state_dict(path: Path, entries: Any) -> dict[str, Tensor]:
    """The entries by name, without `module.`; InputError if one of them is no tensor."""
    if not isinstance(entries, Mapping) or not entries:
        raise InputError(f"expected {WHAT}, found no weights in {path}: check the path")
    odd = [str(name) for name, value in entries.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if odd:
        raise InputError(
            f"expected {WHAT}, found {len(odd)} entries that are no tensors ({first_few(odd)}) in {path}: "
            "check the path"
        )
    is_parallel = all(name.startswith(PARALLEL_PREFIX) for name in entries)
    return {name[len(PARALLEL_PREFIX) :] if is_parallel else name: tensor for name, tensor in entries.items()}


def _layout(path: Path, names: Mapping[str, Tensor]) -> Layout:
    if any(name.startswith("backbone.layers.") for name in names):
        return "lavt-one"
    if "patch_embed.proj.weight" in names and any(name.startswith("layers.0.blocks.0.attn.") for name in names):
        return "swin"
    raise InputError(
        f"expected {WHAT}, found {len(names)} tensors of another network ({first_few(names)}) in {path}: check the path"
    )
