"""Pre-trained networks in transformers' format, from a local folder or the hub: LAVT's Swin and BERT, CLIPSeg."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.data.files.hub import without_bars
from semires.stages.train.models.checkpoints.swin import resize_tables
from semires.stages.train.models.checkpoints.swin_files import read_swin
from semires.stages.train.models.lavt import Lavt

# What must agree for weights to fit and to mean the same. Not the window: its tables of positions can be resized.
SWIN_FIELDS = (
    *("embed_dim", "depths", "num_heads", "patch_size", "mlp_ratio"),
    *("qkv_bias", "use_absolute_embeddings", "hidden_act", "layer_norm_eps"),
)
BERT_FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps"),
)


def load_swin(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained Swin, with or without classifier, into the visual trunk.

    source: folder in the transformers format (config.json and safetensors), a name on the Hugging Face hub such as
    `microsoft/swin-base-patch4-window12-384-in22k`, or Microsoft's own checkpoint file (.pth). Weights of another
    window have their tables of relative positions resized (`resize_table`), as LAVT does. Raises InputError when it
    cannot be read, is of another size or lacks weights.
    """
    window = lavt.visual.swin_config.window_size
    if Path(source).is_file():
        sizes, trunk = read_swin(source)
        found = {"embed_dim": sizes.embed_dim, "depths": sizes.depths, "num_heads": sizes.heads}
        check_values("Swin", source, lavt.visual.swin_config, found | {"patch_size": sizes.patch})
        lavt.visual.load_state_dict(resize_tables(trunk, window, source))
        return
    # The trunk ends before Swin's last norm, so a checkpoint without that is whole for us.
    own = _Own(lavt.visual.swin_config, SWIN_FIELDS, unread="layernorm.")
    _, swin = read_pretrained("Swin", source, SwinConfig, SwinModel, own, add_pooling_layer=False)
    lavt.visual.embeddings.load_state_dict(swin.embeddings.state_dict())
    lavt.visual.layers.load_state_dict(resize_tables(swin.encoder.layers.state_dict(), window, source))


def load_bert(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained BERT, with or without its heads, into the text encoder.

    source and errors as for `load_swin`, e.g. `google-bert/bert-base-uncased`.
    """
    own = _Own(lavt.text.bert_config, BERT_FIELDS, unread="pooler.")
    _, bert = read_pretrained("BERT", source, BertConfig, BertModel, own, add_pooling_layer=False)
    lavt.text.bert.load_state_dict(bert.state_dict())


@dataclass(frozen=True)
class _Own:
    """What the weights must fit: `fields` of the config of a network of ours, which has no part named `unread`."""

    config: Any
    fields: tuple[str, ...]
    unread: str


def read_pretrained(
    kind: str,
    source: str | os.PathLike[str],
    config_class: Any,
    model_class: Any,
    own: _Own | None = None,
    *,
    with_weights: bool = True,
    **options: Any,
) -> tuple[Any, Any]:
    """A model of transformers at `source`, a local folder or a hub name: its config, and itself in float32.

    The model is None without `with_weights`; `options` go to its class. InputError where it cannot be read, lacks
    weights, or differs from `own`.
    """
    folder = Path(source)
    # transformers reads a folder without a config as one with the default config.
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(
            f"expected a {kind} (config.json and safetensors) in {source}, found no config.json: "
            "give the folder that holds the weights"
        )
    try:
        found = config_class.get_config_dict(source)[0].get("model_type")
        # transformers reads any JSON as a config of the class asked for, and what it lacks as the defaults.
        if found != config_class.model_type:
            raise InputError(
                f"expected a {kind} (model_type {config_class.model_type!r} in config.json) in {source}, found "
                f"{found!r}: check the path"
            )
        config = config_class.from_pretrained(source)
        if own is not None:
            check_values(kind, source, own.config, {field: getattr(config, field) for field in own.fields})
        if not with_weights:
            return config, None
        with without_bars():
            model, info = model_class.from_pretrained(
                source, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **options
            )
    except InputError:
        raise
    # What an unreadable file, a wrong shape or an unreachable hub raises differs between versions and file formats.
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"expected a {kind} (local folder with config.json and safetensors, or a hub name) at {source}, found none "
            f"that can be read ({reason}): check the path or the network"
        ) from error
    missing = sorted(name for name in info["missing_keys"] if own is None or not name.startswith(own.unread))
    if missing:
        raise InputError(
            f"expected all weights of a {kind} in {source}, found {len(missing)} missing, e.g. {missing[0]}: "
            "download the weights again"
        )
    return config, model


def check_values(kind: str, source: str | os.PathLike[str], own: Any, values: dict[str, Any]) -> None:
    """InputError unless the config `own` of a network of ours has these values."""
    for field, value in values.items():
        expected, found = _plain(getattr(own, field)), _plain(value)
        if expected != found:
            raise InputError(
                f"expected a {kind} with {field} {expected}, found {found} in {source}: "
                "use weights of the model's size, or change the model"
            )


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
