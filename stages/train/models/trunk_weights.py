"""The pre-trained visual trunks that are in the package: a safetensors file of the weights, and nothing else."""

import os
from pathlib import Path

from safetensors import SafetensorError
from torch import nn

from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import load_tensors


def load_trunk(trunk: nn.Module, path: str | os.PathLike[str]) -> None:
    """Read the weights of a trunk that pretrain_nano.py wrote.

    Raises InputError when the file is missing, damaged or of another size.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"expected visual weights in a safetensors file, found nothing at {path}: check the path")
    try:
        weights = load_tensors(path)
    except (SafetensorError, OSError) as error:
        raise InputError(f"expected a safetensors file, found {path} unreadable ({error}): write it again") from error
    own = {name: tuple(tensor.shape) for name, tensor in trunk.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if own != found:
        name = min(name for name in own.keys() | found.keys() if own.get(name) != found.get(name))
        raise InputError(
            f"expected visual weights of this model, found {name} of shape {found.get(name, 'none')} instead of "
            f"{own.get(name, 'none')} in {path}: use the settings that the file was written with"
        )
    trunk.load_state_dict(weights)
