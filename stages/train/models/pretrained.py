"""Pre-trained backbones for LAVT: Swin and BERT in transformers' format, from a local folder or the hub."""

import os
from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt import Lavt

# What must agree for weights to fit and to mean the same.
SWIN_FIELDS = (
    *("embed_dim", "depths", "num_heads", "window_size", "patch_size", "mlp_ratio"),
    *("qkv_bias", "use_absolute_embeddings", "hidden_act", "layer_norm_eps"),
)
BERT_FIELDS = (
    *("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("max_position_embeddings", "type_vocab_size", "hidden_act", "layer_norm_eps"),
)


def load_swin(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained Swin, with or without classifier, into the visual trunk.

    source: folder in the transformers format (config.json and safetensors), or a name on the Hugging Face hub such as
    `microsoft/swin-base-patch4-window12-384-in22k`. Raises InputError when it cannot be read, is of another size or
    lacks weights.
    """
    own = lavt.visual.swin_config
    # The trunk ends before Swin's last norm, so a checkpoint without that is whole for us.
    swin = _read_pretrained("Swin", source, SwinConfig, SwinModel, own, SWIN_FIELDS, unread="layernorm.")
    lavt.visual.embeddings.load_state_dict(swin.embeddings.state_dict())
    lavt.visual.layers.load_state_dict(swin.encoder.layers.state_dict())


def load_bert(lavt: Lavt, source: str | os.PathLike[str]) -> None:
    """Copy the weights of a pre-trained BERT, with or without its heads, into the text encoder.

    source and errors as for `load_swin`, e.g. `google-bert/bert-base-uncased`.
    """
    own = lavt.text.bert_config
    bert = _read_pretrained("BERT", source, BertConfig, BertModel, own, BERT_FIELDS, unread="pooler.")
    lavt.text.bert.load_state_dict(bert.state_dict())


def _read_pretrained(
    kind: str,
    source: str | os.PathLike[str],
    config_class: Any,
    model_class: Any,
    own: Any,
    fields: tuple[str, ...],
    unread: str,
) -> Any:
    """The model at `source` if `fields` of its config are those of `own` and all its weights are there."""
    folder = Path(source)
    # transformers reads a folder without a config as one with the default config.
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise InputError(
            f"expected a {kind} (config.json and safetensors) in {source}, found no config.json: "
            "give the folder that holds the weights"
        )
    try:
        config = config_class.from_pretrained(source)
        for field in fields:
            expected, found = _plain(getattr(own, field)), _plain(getattr(config, field))
            if expected != found:
                raise InputError(
                    f"expected a {kind} with {field} {expected}, found {found} in {source}: "
                    "use weights of the model's size, or change the model"
                )
        model, info = model_class.from_pretrained(
            source, use_safetensors=True, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
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
    missing = sorted(name for name in info["missing_keys"] if not name.startswith(unread))
    if missing:
        raise InputError(
            f"expected all weights of a {kind} in {source}, found {len(missing)} missing, e.g. {missing[0]}: "
            "download the weights again"
        )
    return model


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
