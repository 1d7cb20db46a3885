"""Tensors under the names of one layout and of another: renamed, stacked or reshaped, never computed with."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from semires.stages.data.errors import InputError

NUM_NAMED = 3
"""How many keys an error names; the others are counted."""


@dataclass(frozen=True)
class Piece:
    """A tensor of the other layout and what it is in ours.

    theirs: its name there. ours: its name here; of several, they are stacked along the first axis there (Swin's one
    projection to queries, keys and values). pointwise: a convolution of kernel 1 there, [out, in, 1], and a linear
    layer here, [out, in].
    """

    theirs: str
    ours: tuple[str, ...]
    pointwise: bool = False


def renamed(
    theirs: str, ours: str, tensors: Iterable[str] = ("weight", "bias"), *, pointwise: bool = False
) -> list[Piece]:
    """The pieces of a module that has `tensors` in both layouts."""
    return [Piece(f"{theirs}.{name}", (f"{ours}.{name}",), pointwise and name == "weight") for name in tensors]


def to_ours(pieces: Iterable[Piece], theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by our names; views where that is possible."""
    ours: dict[str, Tensor] = {}
    for piece in pieces:
        tensor = theirs[piece.theirs]
        parts = (tensor.squeeze(-1) if piece.pointwise else tensor).chunk(len(piece.ours)) if tensor.ndim else [tensor]
        ours.update(zip(piece.ours, parts, strict=True))
    return ours


def to_theirs(pieces: Iterable[Piece], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The way back of `to_ours`, bit by bit. Works on the meta device too, where it gives shapes and dtypes."""
    theirs = {}
    for piece in pieces:
        parts = [ours[name] for name in piece.ours]
        tensor = torch.cat(parts) if len(parts) > 1 else parts[0]
        theirs[piece.theirs] = tensor.unsqueeze(-1) if piece.pointwise else tensor
    return theirs


def check_tensors(
    what: str,
    source: str | os.PathLike[str],
    found: Mapping[str, Tensor],
    expected: Mapping[str, Tensor],
    optional: Mapping[str, Tensor] | None = None,
) -> None:
    """InputError unless `found` has every key of `expected`, none but those and `optional` ones, and their shapes.

    what: such as "LAVT". expected, optional: tensors of the right shapes and dtypes, on the meta device as a rule. The
    error names the first few keys of each kind and counts them all.
    """
    known = {**expected, **(optional or {})}
    unknown = sorted(found.keys() - known.keys())
    missing = sorted(expected.keys() - found.keys())
    misshapen = [
        f"{name} {_described(found[name])} instead of {_described(tensor)}"
        for name, tensor in sorted(known.items())
        if name in found and _described(found[name]) != _described(tensor)
    ]
    faults = [
        f"{len(names)} {kind} ({first_few(names)})"
        for kind, names in (("unknown", unknown), ("missing", missing), ("of another shape or type", misshapen))
        if names
    ]
    if faults:
        raise InputError(
            f"expected the tensors of a {what} in {source}, found {', '.join(faults)}: give a whole {what} checkpoint"
        )


def first_few(names: Iterable[str]) -> str:
    """The first names of a list in one line; the file that they are from may hold anything."""
    names = list(names)
    shown = [" ".join(name.split())[:160] for name in names[:NUM_NAMED]]
    return ", ".join([*shown, "..."] if len(names) > NUM_NAMED else shown)


def _described(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
