"""A RES model as a program that runs without semires: torch.export's `.pt2` or ONNX, checked against the model itself.

Either takes `images` float32 [B, 3, H, W] (ImageNet-normalised), `input_ids` and `attention_mask` int64 [B, T] with T
the tokenizer's `max_tokens`, and gives `logits` float32 [B, 2, H, W]. B is free, and so are H and W unless fixed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.fx.experimental import _config

from semires.stages.data.errors import InputError
from semires.stages.train.models.interface import ResModel

sizes: Any = _config  # a module that is given its `patch` when it is run

Format = Literal["torch-export", "onnx"]
SUFFIXES: dict[Format, str] = {"torch-export": ".pt2", "onnx": ".onnx"}
INPUTS = ("images", "input_ids", "attention_mask")
# Logits are of the order of 10; ONNX Runtime adds and fuses in another order.
TOLERANCES: dict[Format, float] = {"torch-export": 1e-4, "onnx": 1e-3}
EXPRESSIONS = ("left girl in red", "small dog", "the person on the far right holding a green umbrella")

Program = Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a program is from its model on one batch of random images."""

    shape: tuple[int, int, int, int]
    """Of the images."""
    difference: float
    """Largest absolute difference of logits."""
    agreement: float
    """Share of pixels with the same argmax."""


def export_model(model: ResModel, path: Path, format: Format, *, fixed_size: bool = False) -> list[Parity]:
    """Write `model` to `path` as a program, read it back and compare it with the model on batches of other shapes.

    fixed_size: only the batch is free, H and W are the model's image size. Returns the comparisons; where one is beyond
    `TOLERANCES`, `path` is left as it was. InputError where the model cannot be exported, or ONNX's packages are
    missing.
    """
    model = model.eval().cpu()
    if format == "onnx":
        _require_onnx()
    # By the format's own ending: torch warns of any other.
    temporary = path.with_name(f".{path.stem}.tmp{SUFFIXES[format]}")
    try:
        with torch.no_grad():
            shapes = _shapes(model.image_size, fixed_size)
            _check_takes(model, shapes)
            program = _export(model, fixed_size)
            load = _write_onnx if format == "onnx" else _write_torch
            found = load(program, temporary)
            parities = [_compare(model, found, shape) for shape in shapes]
        if all(parity.difference <= TOLERANCES[format] for parity in parities):
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return parities


def _export(model: ResModel, fixed_size: bool) -> Any:
    # A named dimension would refuse a model whose windows torch tells apart from a single one, which it may with one
    # image of a fixed size.
    free = torch.export.Dim.DYNAMIC
    sides = {} if fixed_size else {2: free, 3: free}
    batch = _batch(model, (2, 3, model.image_size, model.image_size))
    shapes = ({0: free, **sides}, {0: free}, {0: free})
    try:
        # Sizes that may be 1 and may be more (images, windows): torch is not to fix which from the example.
        with sizes.patch(backed_size_oblivious=True):
            program = torch.export.export(model, batch, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # torch raises a dozen kinds, each some pages long
        reason = " ".join(str(error).split())[:200]
        remedy = "" if fixed_size else "; try --fixed-size"
        raise InputError(
            f"expected a model that torch.export can follow, found {type(model).__name__}, which it cannot "
            f"({type(error).__name__}: {reason}){remedy}"
        ) from error
    # torch asks for more than one image where it chooses a kernel for convolutions; one runs as well, as the comparison
    # shows. Without this a program that is loaded refuses it.
    if hasattr(program, "_guards_code"):
        program._guards_code = [
            guard for guard in program._guards_code if not guard.endswith("> 1") and "!=" not in guard
        ]
    return program


def _write_torch(program: Any, path: Path) -> Program:
    torch.export.save(program, path)
    found: Program = torch.export.load(path).module()
    return found


def _write_onnx(program: Any, path: Path) -> Program:
    import onnxruntime

    # One file: weights beside it would be lost when it is sent on. Above 2 GB ONNX has no other way.
    exported = torch.onnx.export(program, dynamo=True, input_names=INPUTS, output_names=["logits"], verbose=False)
    assert exported is not None
    exported.save(path, external_data=False)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*batch: Tensor) -> Tensor:
        feeds = {name: tensor.numpy() for name, tensor in zip(INPUTS, batch, strict=True)}
        return torch.from_numpy(session.run(None, feeds)[0])

    return run


def _require_onnx() -> None:
    for package in ("onnx", "onnxscript", "onnxruntime"):
        try:
            __import__(package)
        except ImportError as error:
            raise InputError(
                f"--format onnx: expected the package {package}, found none; pip install 'semires[onnx]'"
            ) from error


def _shapes(size: int, fixed_size: bool) -> Sequence[tuple[int, int, int, int]]:
    if fixed_size:
        return [(1, 3, size, size), (3, 3, size, size)]
    # The model's own size, one that is no multiple of any window, and another aspect.
    return [(1, 3, size, size), (3, 3, size + 13, size - 11), (2, 3, size // 2 + 40, size)]


def _check_takes(model: ResModel, shapes: Sequence[tuple[int, int, int, int]]) -> None:
    """InputError where the model itself cannot do what its program is to be free in."""
    for shape in shapes:
        try:
            model(*_batch(model, shape))
        except Exception as error:  # of whatever kind a network of anyone's raises
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"expected a model that takes images of other sizes, found {type(model).__name__} which fails at "
                f"{list(shape)} ({type(error).__name__}: {reason}); give --fixed-size"
            ) from error


def _batch(model: ResModel, shape: tuple[int, int, int, int]) -> tuple[Tensor, Tensor, Tensor]:
    images = torch.randn(shape, generator=torch.Generator().manual_seed(shape[0]))
    return images, *model.tokenizer([EXPRESSIONS[n % len(EXPRESSIONS)] for n in range(shape[0])])


def _compare(model: ResModel, program: Program, shape: tuple[int, int, int, int]) -> Parity:
    batch = _batch(model, shape)
    expected, found = model(*batch), program(*batch)
    if found.shape != expected.shape:
        return Parity(shape=shape, difference=float("inf"), agreement=0.0)
    same = expected.argmax(dim=1) == found.argmax(dim=1)
    difference = (expected - found).abs().max().nan_to_num(nan=float("inf"))
    return Parity(shape=shape, difference=float(difference), agreement=float(same.float().mean()))
