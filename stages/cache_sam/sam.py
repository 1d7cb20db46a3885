"""Loading a SAM: one of segment-anything's registry from its checkpoint file, or the tiny one in the package."""

import hashlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from semires.stages.cache_sam.tiny_sam import build_tiny_sam, weights_path
from semires.stages.data.errors import InputError

SAM_NAMES = ("vit_h", "vit_l", "vit_b", "tiny")
CHECKPOINT_FILES = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
}


@dataclass(frozen=True, kw_only=True)
class LoadedSam:
    """A SAM in eval mode on its device, with the name and the checkpoint's sha256 that the manifest records."""

    name: str
    sha256: str
    sam: Sam


def load_sam(name: str, checkpoint: Path | None, device: torch.device) -> LoadedSam:
    """Build SAM `name` (one of `SAM_NAMES`) and load `checkpoint` (segment-anything's `.pth`, or safetensors).

    `checkpoint` may be None for `tiny` only: its weights are in the package. Pickled code in a checkpoint is never
    run (`weights_only=True`). InputError where the file is missing, no checkpoint, or of another SAM.
    """
    if name not in SAM_NAMES:
        raise InputError(f"--sam: expected one of {', '.join(SAM_NAMES)}, found {name!r}")
    if checkpoint is None:
        if name != "tiny":
            raise InputError(
                f"SAM {name} needs its weights: give --sam-checkpoint FILE, the file {CHECKPOINT_FILES[name]} that "
                "segment-anything's README links"
            )
        checkpoint = weights_path()
    if not checkpoint.is_file():
        raise InputError(f"--sam-checkpoint: expected a file, found nothing at {checkpoint}")
    weights = _read_weights(checkpoint)
    build: Callable[[], Sam] = build_tiny_sam if name == "tiny" else sam_model_registry[name]
    with torch.device("meta"):
        expected = build().state_dict()
    _check_shapes(weights, expected, name, checkpoint)
    sam = build()
    sam.load_state_dict(weights)
    return LoadedSam(name=name, sha256=sha256_of(checkpoint), sam=sam.eval().to(device))


def sha256_of(path: Path) -> str:
    """Hexadecimal sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        weights = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True, mmap=_is_zip(path))
        )
    except Exception as error:  # on files of another kind torch's unpickler raises nearly anything, IndexError included
        if isinstance(error, pickle.UnpicklingError):  # whose text is a page on torch.load's options
            reason = "not torch's format, or it holds more than tensors"
        else:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"--sam-checkpoint: expected SAM weights, found a file that is no checkpoint: {path} ({reason[:120]})"
        ) from error
    if not isinstance(weights, dict) or not all(isinstance(value, torch.Tensor) for value in weights.values()):
        raise InputError(f"--sam-checkpoint: expected SAM weights by name, found something else in {path}")
    return weights


def _is_zip(path: Path) -> bool:
    """Whether a `.pth` is of torch's zip format, the one that can be mapped instead of read into memory."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _check_shapes(weights: dict[str, Any], expected: dict[str, torch.Tensor], name: str, path: Path) -> None:
    for key in sorted(expected.keys() | weights.keys()):
        found_shape = tuple(weights[key].shape) if key in weights else None
        expected_shape = tuple(expected[key].shape) if key in expected else None
        if found_shape != expected_shape:
            raise InputError(
                f"--sam-checkpoint: {path} is no SAM {name}: expected {key} of shape {expected_shape}, found "
                f"{found_shape}; give the file that belongs to --sam {name}"
            )
