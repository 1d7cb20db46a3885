"""Loading what proposes masks: segment-anything's SAM from a checkpoint file, a SAM of any generation from a folder of
transformers or the hub, or the tiny one."""

import hashlib
import pickle
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import LIKE_SAM2
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS as SAM2_SETTINGS
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS, build_tiny_sam, weights_path
from semires.stages.cache_sam.models.transformers_folder import class_of, download_model, weight_files
from semires.stages.cache_sam.models.transformers_models import load_transformers_model
from semires.stages.cache_sam.models.transformers_sam import load_transformers_sam
from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors

SAM_NAMES = ("vit_h", "vit_l", "vit_b", "default", "tiny")  # "default": segment-anything's other name for vit_h
CHECKPOINT_FILES = {
    "vit_h": "sam_vit_h_4b8939.pth",
    "vit_l": "sam_vit_l_0b3195.pth",
    "vit_b": "sam_vit_b_01ec64.pth",
    "default": "sam_vit_h_4b8939.pth",
}


HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True, kw_only=True)
class LoadedSam:
    """A SAM in eval mode on its device, with what the store's manifest records of it.

    `name` is the registry's ("default" is recorded as vit_h), "tiny", the hub's as it was given, or a folder's own
    name without its path, so that a store moves between machines. `sha256` is of the file of weights; of several,
    in the order of their names, as of one file.
    """

    name: str
    sha256: str
    sam: Any
    """segment-anything's `Sam`, or one of transformers' classes: what `proposer_of` takes."""
    settings: GeneratorSettings = field(default_factory=GeneratorSettings)
    """The generator's settings that were published for it, of the tiny SAM those that suit RefShapes."""


def load_sam(name: str, checkpoint: Path | None, device: torch.device) -> LoadedSam:
    """Load the SAM `name`: one of `SAM_NAMES`, else a folder in transformers' format, else a hub name.

    Folder and hub may have a SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3 (`transformers_folder.CLASSES`).

    A hub name is one such as "facebook/sam-vit-huge"; a folder called "tiny" is reached as "./tiny". `checkpoint` is
    the weights' file (segment-anything's `.pth`, or the same as safetensors) of one of `SAM_NAMES`; it may be None
    for `tiny`, whose weights are in the package, and must be for a folder or the hub, which bring theirs. Pickled
    code in a checkpoint is never run (`weights_only=True`). InputError where the name means nothing, the file is
    missing, no checkpoint, or of another SAM, and for all that `load_transformers_sam` and `download_model` refuse.
    """
    if name not in SAM_NAMES:
        return _load_other(name, checkpoint, device)
    if checkpoint is None:
        if name != "tiny":
            raise InputError(
                f"SAM {name} needs its weights: give --sam-checkpoint FILE, the file {CHECKPOINT_FILES[name]}, which "
                f"`semires data download sam-{'vit-h' if name == 'default' else name.replace('_', '-')}` fetches"
            )
        checkpoint = weights_path()
    if checkpoint.is_dir():
        raise InputError(
            f"--sam-checkpoint: expected a file, found a folder: {checkpoint}; give a folder in transformers' format "
            "as --sam"
        )
    if not checkpoint.is_file():
        raise InputError(f"--sam-checkpoint: expected a file, found nothing at {checkpoint}")
    weights = _read_weights(checkpoint)
    build: Callable[[], Sam] = build_tiny_sam if name == "tiny" else sam_model_registry[name]
    with torch.device("meta"):
        expected = build().state_dict()
    _check_shapes(weights, expected, name, checkpoint)
    sam = build()
    sam.load_state_dict(weights)
    recorded = "vit_h" if name == "default" else name
    settings = GENERATOR_SETTINGS if name == "tiny" else GeneratorSettings()
    return LoadedSam(name=recorded, sha256=sha256_of(checkpoint), sam=sam.eval().to(device), settings=settings)


def sha256_of(*paths: Path) -> str:
    """Hexadecimal sha256 of the bytes of one or more files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _load_other(name: str, checkpoint: Path | None, device: torch.device) -> LoadedSam:
    """A SAM in transformers' format: the folder `name`, else the hub's model of this name."""
    folder = Path(name)
    is_folder = bool(name) and folder.is_dir()
    if not is_folder and not HUB_NAME.fullmatch(name):
        raise InputError(
            f"--sam: expected one of {', '.join(SAM_NAMES)}, a folder with a SAM of transformers, or a hub name such "
            f"as facebook/sam2.1-hiera-large, found {name!r}"
        )
    if checkpoint is not None:
        raise InputError(
            f"--sam-checkpoint: expected none with --sam {name}, which brings its weights, found {checkpoint}: leave "
            "it out"
        )
    recorded = folder.resolve().name if is_folder else name
    if not is_folder:
        folder = download_model(name)
    kind = class_of(folder)
    sam = load_transformers_sam(folder) if kind == "SamModel" else load_transformers_model(folder)
    settings = SAM2_SETTINGS if kind in LIKE_SAM2 else GeneratorSettings()
    return LoadedSam(name=recorded, sha256=sha256_of(*weight_files(folder)), sam=sam.to(device), settings=settings)


def _read_weights(path: Path) -> dict[str, Any]:
    try:
        weights = (
            load_tensors(path)
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
