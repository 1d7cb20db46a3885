"""Microsoft's Swin checkpoints: read for our visual trunk, and rewritten as a folder in transformers' format."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import SwinConfig, SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import check_tensors, to_ours, to_theirs
from semires.stages.train.models.checkpoints.reading import Checkpoint, read_checkpoint
from semires.stages.train.models.checkpoints.replacing import replacing_folder
from semires.stages.train.models.checkpoints.swin import (
    INDEX,
    MASK,
    SwinSizes,
    position_index,
    resize_tables,
    swin_pieces,
    swin_sizes,
)
from semires.stages.train.models.visual import SwinTrunk

LAST_NORM = ("norm.weight", "norm.bias")
HEAD = ("head.weight", "head.bias")


def read_swin(path: str | os.PathLike[str]) -> tuple[SwinSizes, dict[str, Tensor]]:
    """The sizes of the Swin in a `.pth` file, and its trunk's state dict at the file's own window.

    The last norm, the classifier and the tensors that follow from the window are dropped. InputError for a file that
    is none, or that holds or lacks other tensors.
    """
    checkpoint = read_checkpoint(path)
    sizes, trunk, _ = _split(checkpoint)
    return sizes, trunk


def save_swin(checkpoint: Checkpoint, folder: Path, window: int | None = None) -> SwinSizes:
    """Write a Swin checkpoint as a folder that transformers reads, with its classifier where it has one.

    window: resize the tables of relative positions to it; None keeps the file's own. InputError as for `read_swin`.
    """
    sizes, trunk, rest = _split(checkpoint)
    missing = [name for name in LAST_NORM if name not in rest]
    if missing:
        raise InputError(
            f"expected Swin's last norm in {checkpoint.path}, found no {missing[0]}: use the whole checkpoint"
        )
    with_head = all(name in rest for name in HEAD)
    config = SwinConfig(
        embed_dim=sizes.embed_dim,
        depths=list(sizes.depths),
        num_heads=list(sizes.heads),
        window_size=window or sizes.window,
        patch_size=sizes.patch,
        # Where the last stage's map is one window, as in every Swin that Microsoft published: 224 or 384.
        image_size=(window or sizes.window) * sizes.patch * 2 ** (len(sizes.depths) - 1),
        **({"num_labels": len(rest["head.bias"])} if with_head else {}),
    )
    network: Any = (SwinForImageClassification if with_head else SwinModel)(config)
    swin = network.swin if with_head else network
    state = resize_tables(trunk, config.window_size, checkpoint.path)
    swin.embeddings.load_state_dict(_below(state, "embeddings."))
    swin.encoder.layers.load_state_dict(_below(state, "layers."))
    with torch.no_grad():
        swin.layernorm.load_state_dict(_below(rest, "norm."))
        if with_head:
            network.classifier.load_state_dict(_below(rest, "head."))
    with replacing_folder(folder, is_swin_config) as temporary:
        network.save_pretrained(temporary)
    return sizes


def is_swin_config(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a Swin in transformers' format."""
    return config.get("model_type") == "swin"


def _split(checkpoint: Checkpoint) -> tuple[SwinSizes, dict[str, Tensor], dict[str, Tensor]]:
    """Sizes, the trunk by our names, and the last norm and classifier by theirs."""
    path, tensors = checkpoint.path, checkpoint.tensors
    if checkpoint.layout != "swin":
        raise InputError(f"expected a Swin checkpoint, found one of LAVT in {path}: give Swin's own, or convert it")
    sizes = swin_sizes(tensors, path)
    rest = {name: tensor for name, tensor in tensors.items() if name in (*LAST_NORM, *HEAD)}
    implied = {name: tensor for name, tensor in tensors.items() if name.rpartition(".")[2] in (INDEX, MASK)}
    with torch.device("meta"):
        trunk = SwinTrunk(
            embed_dim=sizes.embed_dim, depths=sizes.depths, heads=sizes.heads, window=sizes.window, patch=sizes.patch
        )
    pieces = swin_pieces(sizes.depths)
    expected = to_theirs(pieces, trunk.state_dict())
    width = trunk.channels[-1]
    expected |= {name: torch.empty(width, device="meta") for name in LAST_NORM if name in rest}
    if rest.keys() & set(HEAD):
        num_labels = len(rest[HEAD[0]]) if HEAD[0] in rest else 0
        expected |= {
            HEAD[0]: torch.empty(num_labels, width, device="meta"),
            HEAD[1]: torch.empty(num_labels, device="meta"),
        }
    check_tensors("Swin", path, {name: t for name, t in tensors.items() if name not in implied}, expected)
    index = position_index(sizes.window)
    for name, tensor in implied.items():
        if name.endswith(INDEX) and not torch.equal(tensor, index):
            raise InputError(f"expected Swin's own {INDEX}, found others in {name} of {path}: get the file again")
    return sizes, to_ours(pieces, tensors), rest


def _below(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
