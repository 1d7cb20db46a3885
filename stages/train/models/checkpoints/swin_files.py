"""Microsoft's Swin checkpoints, read for our visual trunk."""

import os

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import check_tensors, to_ours, to_theirs
from semires.stages.train.models.checkpoints.reading import Checkpoint, read_checkpoint
from semires.stages.train.models.checkpoints.swin import (
    INDEX,
    MASK,
    SwinSizes,
    position_index,
    swin_pieces,
    swin_sizes,
)
from semires.stages.train.models.lavt.visual import SwinTrunk

LAST_NORM = ("norm.weight", "norm.bias")
HEAD = ("head.weight", "head.bias")


def read_swin(path: str | os.PathLike[str]) -> tuple[SwinSizes, dict[str, Tensor]]:
    """The sizes of the Swin in a `.pth` file, and its trunk's state dict at the file's own window.

    The last norm, the classifier and the tensors that follow from the window are dropped. InputError for a file that
    is none, or that holds or lacks other tensors.
    """
    checkpoint = read_checkpoint(path)
    sizes, trunk, _ = split_swin(checkpoint)
    return sizes, trunk


def split_swin(checkpoint: Checkpoint) -> tuple[SwinSizes, dict[str, Tensor], dict[str, Tensor]]:
    """Sizes, the trunk's state dict by our names, and the last norm and classifier, where they are there, by theirs.

    InputError for a checkpoint of another network, and for one that holds or lacks other tensors.
    """
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
