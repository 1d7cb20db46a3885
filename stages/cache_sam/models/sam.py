"""Loading what proposes masks: segment-anything's SAM from a checkpoint file, a SAM of any generation from a folder of
transformers or the hub, or the tiny one."""

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from segment_anything import sam_model_registry

from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.loading.checkpoints import load_checkpoint
from semires.stages.cache_sam.models.loading.own import load_own
from semires.stages.cache_sam.models.loading.sam3_folder import read_sam3
from semires.stages.cache_sam.models.loading.transformers_folder import class_of, download_model, weight_files
from semires.stages.cache_sam.models.loading.transformers_models import load_transformers_model
from semires.stages.cache_sam.models.loading.transformers_sam import load_transformers_sam
from semires.stages.cache_sam.models.naming import SAM_NAMES, check_sam, check_sam3, is_sam_folder
from semires.stages.cache_sam.models.proposers import LIKE_SAM2
from semires.stages.cache_sam.models.sam2_proposer import GENERATOR_SETTINGS as SAM2_SETTINGS
from semires.stages.cache_sam.models.tiny_sam import GENERATOR_SETTINGS, build_tiny_sam, weights_path
from semires.stages.data.files.factories import is_factory


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
    """segment-anything's `Sam`, one of transformers' classes, a `Proposer` (what `proposer_of` takes), or a `Sam3`."""
    settings: GeneratorSettings = field(default_factory=GeneratorSettings)
    """The generator's settings that were published for it, of the tiny SAM those that suit RefShapes."""
    note: str | None = None
    """What of a checkpoint was not used, and in what it differs from Meta's, in a line."""


def load_sam3(name: str, device: torch.device, *, with_tracker: bool) -> LoadedSam:
    """Load the SAM 3 that is asked for words, from the folder `name` or the hub; with the tracker, which answers
    points, where it is asked as well. InputError as `load_sam`, and for all that `read_sam3` refuses."""
    check_sam3(name)
    is_folder = is_sam_folder(name)
    recorded = Path(name).resolve().name if is_folder else name
    folder = Path(name) if is_folder else download_model(name, words=True)
    sam3 = read_sam3(folder, with_tracker=with_tracker).to(device)
    return LoadedSam(name=recorded, sha256=sha256_of(*weight_files(folder)), sam=sam3, settings=SAM2_SETTINGS)


def load_sam(name: str, checkpoint: Path | None, device: torch.device) -> LoadedSam:
    """Load the SAM `name`: one of `SAM_NAMES`, a folder in transformers' format, a factory, or else a hub name.

    Folder and hub may have a SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3 (`transformers_folder.CLASSES`); a factory,
    "package.module:function", gives a `Proposer` of the user's own.

    A hub name is one such as "facebook/sam-vit-huge"; a folder called "tiny" is reached as "./tiny". `checkpoint` is
    the weights' file of one of `SAM_NAMES`, Meta's or of a fine-tuned one (`load_checkpoint`); it may be None for
    `tiny`, whose weights are in the package, and must be for a folder or the hub, which bring theirs. Pickled code in a
    checkpoint is never run. InputError where the name means nothing, the file is missing, no checkpoint, or of another
    SAM, and for all that `load_transformers_sam` and `download_model` refuse.
    """
    check_sam(name, checkpoint)
    if name not in SAM_NAMES:
        return _load_other(name, device)
    checkpoint = checkpoint or weights_path()
    sam, note = load_checkpoint(checkpoint, build_tiny_sam if name == "tiny" else sam_model_registry[name], name)
    return LoadedSam(
        name="vit_h" if name == "default" else name,
        sha256=sha256_of(checkpoint),
        sam=sam.to(device),
        settings=GENERATOR_SETTINGS if name == "tiny" else GeneratorSettings(),
        note=note,
    )


def sha256_of(*paths: Path) -> str:
    """Hexadecimal sha256 of the bytes of one or more files, one after the other."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return digest.hexdigest()


def _load_other(name: str, device: torch.device) -> LoadedSam:
    """A SAM in transformers' format, of the folder `name` or the hub; or what the user's factory makes."""
    is_folder = is_sam_folder(name)
    if not is_folder and is_factory(name):
        proposer, sha256 = load_own(name, device)
        return LoadedSam(name=name, sha256=sha256, sam=proposer)
    recorded = Path(name).resolve().name if is_folder else name
    folder = Path(name) if is_folder else download_model(name)
    kind = class_of(folder)
    sam = load_transformers_sam(folder) if kind == "SamModel" else load_transformers_model(folder)
    settings = SAM2_SETTINGS if kind in LIKE_SAM2 else GeneratorSettings()
    return LoadedSam(name=recorded, sha256=sha256_of(*weight_files(folder)), sam=sam.to(device), settings=settings)
