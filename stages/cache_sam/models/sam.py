"""Loading a SAM: segment-anything's from a checkpoint file, transformers' from a folder or the hub, or the tiny one."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam
from torch import nn

from semires.stages.cache_sam.models.checkpoints import check_weights, read_checkpoint
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam, weights_path
from semires.stages.cache_sam.models.transformers_sam import download_sam, load_transformers_sam, weight_files
from semires.stages.data.errors import InputError

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
    in the order of their names, as of one file. `note`, a line, says what of a checkpoint was not used, and in what it
    differs from Meta's.
    """

    name: str
    sha256: str
    sam: Sam
    note: str | None = None


def load_sam(name: str, checkpoint: Path | None, device: torch.device) -> LoadedSam:
    """Load the SAM `name`: one of `SAM_NAMES`, else a folder in transformers' format, else a hub name.

    A hub name is one such as "facebook/sam-vit-huge"; a folder called "tiny" is reached as "./tiny". `checkpoint` is
    the weights' file of one of `SAM_NAMES`: Meta's, or of a fine-tuned one all that `read_checkpoint` takes; trained on
    images of another size it stays a SAM for that size. It may be None for `tiny`, whose weights are in the package,
    and must be for a folder or the hub, which bring theirs. Pickled code in a checkpoint is never run. InputError where
    the name means nothing, the file is missing, no checkpoint, or of another SAM, and for all that
    `load_transformers_sam` and `download_sam` refuse.
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
    found = read_checkpoint(checkpoint)
    build: Callable[[], Sam] = build_tiny_sam if name == "tiny" else sam_model_registry[name]
    with torch.device("meta"):
        expected = for_grid(build(), found.grid).state_dict()
    check_weights(found, expected, name, checkpoint)
    sam = build()
    usual_size = sam.image_encoder.img_size
    for_grid(sam, found.grid).load_state_dict(found.weights)
    notes = list(found.notes)
    if sam.image_encoder.img_size != usual_size:
        notes.append(f"made for images of {sam.image_encoder.img_size} pixels, not {usual_size}")
    for buffer, value in found.pixels.items():
        if not torch.allclose(value, getattr(sam, buffer), atol=1e-2):
            setattr(sam, buffer, value)
            notes.append(f"{buffer} {', '.join(f'{number:g}' for number in value.flatten().tolist())}, not SAM's own")
    return LoadedSam(
        name="vit_h" if name == "default" else name,
        sha256=sha256_of(checkpoint),
        sam=sam.eval().to(device),
        note=f"{checkpoint}: {'; '.join(notes)}" if notes else None,
    )


def for_grid(sam: Sam, grid: int | None) -> Sam:
    """`sam` itself, changed to take images of `grid` x `grid` patches; as it is for None. Weights whose shape depends
    on it become zeros, to be loaded.

    It is then what the builders of fine-tuned SAMs (SAM-Med2D's, SAMed's) make of an image size of their own: the
    positions have one row a patch, those relative to each other in blocks of global attention 2 * grid - 1.
    """
    encoder, prompts = sam.image_encoder, sam.prompt_encoder
    if grid is None or grid == encoder.pos_embed.shape[1]:
        return sam
    encoder.img_size = grid * encoder.patch_embed.proj.stride[0]
    encoder.pos_embed = nn.Parameter(encoder.pos_embed.new_zeros(1, grid, grid, encoder.pos_embed.shape[-1]))
    for block in encoder.blocks:
        if block.window_size == 0:
            for name in ("rel_pos_h", "rel_pos_w"):
                channels = getattr(block.attn, name).shape[-1]
                setattr(block.attn, name, nn.Parameter(encoder.pos_embed.new_zeros(2 * grid - 1, channels)))
    prompts.image_embedding_size = (grid, grid)
    prompts.input_image_size = (encoder.img_size, encoder.img_size)
    prompts.mask_input_size = (4 * grid, 4 * grid)
    return sam


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
            f"--sam: expected one of {', '.join(SAM_NAMES)}, a folder with a SamModel of transformers, or a hub name "
            f"such as facebook/sam-vit-huge, found {name!r}"
        )
    if checkpoint is not None:
        raise InputError(
            f"--sam-checkpoint: expected none with --sam {name}, which brings its weights, found {checkpoint}: leave "
            "it out"
        )
    recorded = folder.resolve().name if is_folder else name
    if not is_folder:
        folder = download_sam(name)
    sam = load_transformers_sam(folder)
    return LoadedSam(name=recorded, sha256=sha256_of(*weight_files(folder)), sam=sam.to(device))
