"""A Swin as a folder in transformers' format: of Microsoft's checkpoint, and of another window."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import SwinConfig, SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.reading import Checkpoint
from semires.stages.train.models.checkpoints.replacing import replacing_folder
from semires.stages.train.models.checkpoints.swin import SwinSizes, resize_tables
from semires.stages.train.models.checkpoints.swin_files import HEAD, LAST_NORM, split_swin
from semires.stages.train.models.pretrained import read_pretrained


def save_swin(checkpoint: Checkpoint, folder: Path, window: int | None = None) -> SwinSizes:
    """Write a Swin checkpoint as a folder that transformers reads, with its classifier where it has one.

    window: resize the tables of relative positions to it; None keeps the file's own. InputError as for
    `split_swin`, and where the last norm is missing.
    """
    sizes, trunk, rest = split_swin(checkpoint)
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
    swin.layernorm.load_state_dict(_below(rest, "norm."))
    if with_head:
        network.classifier.load_state_dict(_below(rest, "head."))
    with replacing_folder(folder, is_swin_config) as temporary:
        network.save_pretrained(temporary)
    return sizes


def is_swin_config(config: dict[str, Any]) -> bool:
    """Whether a config.json is that of a Swin in transformers' format."""
    return config.get("model_type") == "swin"


def resize_swin(source: Path, folder: Path, window: int) -> None:
    """Write the Swin in the folder `source`, in transformers' format, with tables of positions for another window.

    InputError where it cannot be read.
    """
    config, _ = read_pretrained("Swin", source, SwinConfig, SwinModel, with_weights=False)
    is_classifier = "SwinForImageClassification" in (config.architectures or [])
    network_class: Any = SwinForImageClassification if is_classifier else SwinModel
    options: dict[str, Any] = {} if is_classifier else {"add_pooling_layer": False}
    _, network = read_pretrained("Swin", source, SwinConfig, network_class, **options)
    state = resize_tables(network.state_dict(), window, source)
    config.image_size = config.image_size * window // config.window_size
    config.window_size = window
    resized = network_class(config, **options)
    resized.load_state_dict(state)
    with replacing_folder(folder, is_swin_config) as temporary:
        resized.save_pretrained(temporary)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}
