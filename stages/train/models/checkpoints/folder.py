"""The folder of a whole model, from which a new process opens it with nothing else at hand.

config.json         {format, version, model, settings, tokenizer, origin}: which network, and what makes it again
model.safetensors   its state dict
unread.safetensors  of a converted checkpoint: tensors that only its own code has (`origin`)
tokenizer.json ...  the tokenizer in transformers' format; not of a factory's model, which makes its own
README.md           the model card
"""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transformers
from safetensors import SafetensorError
from torch import Tensor
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, PreTrainedTokenizerBase

from semires.stages.data.errors import InputError
from semires.stages.data.files.factories import is_factory
from semires.stages.data.files.tensor_files import load_tensors, save_tensors
from semires.stages.train.models.checkpoints.hub import download_model
from semires.stages.train.models.checkpoints.model_card import CardFacts, model_card
from semires.stages.train.models.checkpoints.origin import Origin
from semires.stages.train.models.checkpoints.pieces import check_tensors
from semires.stages.train.models.checkpoints.position_index import restore_position_index
from semires.stages.train.models.checkpoints.replacing import replacing_folder
from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.factory import model_of_factory
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LavtConfig
from semires.stages.train.models.tokenization import Tokenizer

FORMAT, VERSION = "semires", 1
CONFIG, WEIGHTS, UNREAD, CARD = "config.json", "model.safetensors", "unread.safetensors", "README.md"
CONFIG_KEYS = ("format", "version", "model", "settings", "tokenizer", "origin")
TOKENIZER_KEYS = ("class", "max_tokens", "keep_sep")


@dataclass(frozen=True)
class _Network:
    """A network of ours: what its config says, and how it is made of that. Not for a factory's, which makes its own."""

    kind: type[ResModel]
    title: str
    settings: Callable[[Any], dict[str, Any]]
    build: Callable[[Any, Tokenizer], ResModel]


def save_model(model: ResModel, folder: str | os.PathLike[str], card: CardFacts | None = None) -> None:
    """Write the folder of a model, whole or not at all; one that holds a model is replaced.

    card: what its model card says; None for the card that the model was opened with, else one that says how little is
    known. InputError for a model of no known kind and for a folder with other files.
    """
    name = _name_of(model)
    known = _NETWORKS.get(name)
    origin: Origin | None = getattr(model, "origin", None)
    config = {"format": FORMAT, "version": VERSION, "model": name}
    with replacing_folder(Path(folder), is_model_config) as temporary:
        save_tensors(model.state_dict(), temporary / WEIGHTS, metadata={"format": "pt"})
        if known is not None:
            config |= {"settings": known.settings(model), "tokenizer": _save_tokenizer(model, temporary)}
        if origin is not None:
            config["origin"] = origin.to_dict()
            save_tensors(origin.unread, temporary / UNREAD)
        text = model.card if card is None else model_card(card, model.image_size)
        (temporary / CARD).write_text(text or model_card(_unknown(name), model.image_size), encoding="utf-8")
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def save_network(model: ResModel, folder: str | os.PathLike[str]) -> None:
    """Write what makes the network of a model again, its vocabulary included, without its weights and its card; whole
    or not at all. Not for a factory's model, which makes its own."""
    name = _name_of(model)
    with replacing_folder(Path(folder), is_model_config) as temporary:
        config = {"format": FORMAT, "version": VERSION, "model": name, "settings": _NETWORKS[name].settings(model)}
        config["tokenizer"] = _save_tokenizer(model, temporary)
        (temporary / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def open_network(folder: Path) -> ResModel:
    """The network that `save_network` wrote, with random weights, on the CPU in training mode; InputError as
    `open_model`, and for a factory's."""
    config = read_model_config(folder)
    if config["model"] not in _NETWORKS:
        raise InputError(f"expected one of {', '.join(_NETWORKS)} in {folder}, found {config['model']}: begin anew")
    return _build(folder, config)


def _build(folder: Path, config: Mapping[str, Any]) -> ResModel:
    network = _NETWORKS[config["model"]]
    return network.build(config.get("settings"), _open_tokenizer(folder, config.get("tokenizer")))


def open_model(source: str | os.PathLike[str], **hub_options: Any) -> ResModel:
    """The model in a folder, or under a name on the Hugging Face hub, on the CPU in evaluation mode.

    hub_options: as of `huggingface_hub.snapshot_download`. A factory's model needs the module of its factory, and only
    a local folder may name one. InputError where it cannot be had, is damaged, or is of a newer semires.
    """
    is_local = Path(source).is_dir()
    folder = Path(source) if is_local else download_model(str(source), **hub_options)
    config = read_model_config(folder)
    name = config["model"]
    if name in _NETWORKS:
        model = _build(folder, config)
    elif not is_local:
        raise InputError(
            f"expected a model of semires in {source}, found one that runs {name}: download it with `hf download`, and "
            "open the folder if you trust it"
        )
    else:
        model = model_of_factory(name, pretrained=False)
    weights = _load(folder / WEIGHTS)
    check_tensors(f"{name} model", folder / WEIGHTS, weights, model.state_dict())
    model.load_state_dict(weights)
    if "origin" in config:
        if not isinstance(model, Lavt):
            raise InputError(f"expected an origin of a lavt model only, found one of {name} in {folder}: remove it")
        unread = _load(folder / UNREAD) if (folder / UNREAD).is_file() else {}
        model.origin = Origin.from_dict(config["origin"], unread)
        restore_position_index(model, unread, folder / UNREAD)
    card = folder / CARD
    model.card = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else None
    return model.eval()


def is_model_config(config: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of a model folder, of whatever version."""
    return config.get("format") == FORMAT


def is_model_folder(folder: Path) -> bool:
    """Whether a folder holds a model that `save_model` wrote."""
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and is_model_config(config)


def read_model_config(folder: Path) -> dict[str, Any]:
    """The config of a model folder; InputError where it is missing, damaged, of a newer semires or has other keys."""
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(
            f"expected a model folder ({CONFIG}, {WEIGHTS}), found no {path}: make one with `semires convert`"
        ) from error
    except ValueError as error:
        raise InputError(f"expected JSON in {path}, found a damaged file ({error}): convert the model again") from error
    if not isinstance(config, dict) or not is_model_config(config):
        raise InputError(
            f"expected a model folder of `semires convert`, found another program's {CONFIG} in {folder}: convert it"
        )
    if config.get("version") != VERSION:
        raise InputError(
            f"expected version {VERSION} of the model folder, found {config.get('version')!r} in {path}: update semires"
        )
    if unknown := sorted(config.keys() - set(CONFIG_KEYS)):
        raise InputError(
            f"expected {', '.join(CONFIG_KEYS)} in {path}, found {', '.join(unknown)}: remove or respell them"
        )
    name = config.get("model")
    if not isinstance(name, str) or (name not in _NETWORKS and not is_factory(name)):
        raise InputError(
            f"expected model {', '.join(_NETWORKS)} or PACKAGE.MODULE:FACTORY in {path}, found {name!r}: update semires"
        )
    return config


def _name_of(model: ResModel) -> str:
    if model.factory is not None:
        return model.factory
    for name, network in _NETWORKS.items():
        if type(model) is network.kind:
            return name
    raise InputError(
        f"expected a model of semires or of a factory, found a {type(model).__name__}: make it with "
        "build_model('PACKAGE.MODULE:FACTORY'), or set its `factory` to that name"
    )


def _unknown(name: str) -> CardFacts:
    title = _NETWORKS[name].title if name in _NETWORKS else name
    return CardFacts(title=title, about=f"A referring expression segmentation model ({name}) of semires.")


def _save_tokenizer(model: ResModel, folder: Path) -> dict[str, Any]:
    if not isinstance(getattr(model, "tokenizer", None), Tokenizer):
        raise InputError("expected a model with a tokenizer, found one without: set `tokenizer` before saving it")
    return model.tokenizer.save(folder)


def _open_tokenizer(folder: Path, settings: Any) -> Tokenizer:
    if not isinstance(settings, dict) or settings.keys() != set(TOKENIZER_KEYS):
        raise InputError(
            f"expected a tokenizer with {', '.join(TOKENIZER_KEYS)} in {folder / CONFIG}, found {settings!r}: "
            "convert the model again"
        )
    kind = getattr(transformers, str(settings["class"]), None)
    if not isinstance(kind, type) or not issubclass(kind, PreTrainedTokenizerBase):
        raise InputError(
            f"expected a tokenizer class of transformers in {folder / CONFIG}, found {settings['class']!r}: "
            "update transformers"
        )
    for key, expected in (("max_tokens", int), ("keep_sep", bool)):
        if type(settings[key]) is not expected:
            raise InputError(
                f"expected {key} as {expected.__name__} in {folder / CONFIG}, found {settings[key]!r}: change it"
            )
    max_tokens, keep_sep = settings["max_tokens"], settings["keep_sep"]
    return Tokenizer.from_pretrained(folder, max_tokens=max_tokens, keep_sep=keep_sep, kind=kind)


def _load(path: Path) -> dict[str, Tensor]:
    try:
        return load_tensors(path)
    except FileNotFoundError as error:
        raise InputError(f"expected a model's weights, found no {path}: convert the model again") from error
    except (SafetensorError, OSError) as error:
        raise InputError(f"expected a safetensors file, found {path} unreadable ({error}): convert it again") from error


def _build_lavt(settings: Any, tokenizer: Tokenizer) -> Lavt:
    config = LavtConfig.from_dict(settings if isinstance(settings, dict) else {})
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"expected a vocabulary of at most {config.vocab_size} tokens, found {tokenizer.vocab_size}: "
            "convert the model again"
        )
    return Lavt(config, tokenizer)


def _clipseg_settings(model: ClipSeg) -> dict[str, Any]:
    config = model.network.config
    # transformers does not write how attention is computed, in which the last bits of the logits differ.
    network = json.loads(config.to_json_string(use_diff=False))
    network["attn_implementation"] = config._attn_implementation
    return {"image_size": model.image_size, "network": network, "trains_clip": model.trains_clip}


def _build_clipseg(settings: Any, tokenizer: Tokenizer) -> ClipSeg:
    try:
        settings = {"trains_clip": False, **settings}  # folders from before there was a nano
        is_right = type(settings.get("image_size")) is int and type(settings["trains_clip"]) is bool
        if settings.keys() != {"image_size", "network", "trains_clip"} or not is_right:
            raise ValueError(f"other settings: {', '.join(sorted(settings))}")
        network = CLIPSegForImageSegmentation(CLIPSegConfig.from_dict(settings["network"]))
    # What a config of other values raises is not promised.
    except Exception as error:
        raise InputError(
            f"expected image_size and network of a CLIPSeg, found others ({' '.join(str(error).split())[:160]}): "
            "convert the model again"
        ) from error
    return ClipSeg(network, tokenizer, settings["image_size"], trains_clip=settings["trains_clip"])


_NETWORKS = {
    "lavt": _Network(Lavt, "LAVT", lambda lavt: lavt.config.to_dict(), _build_lavt),
    "clipseg": _Network(ClipSeg, "CLIPSeg", _clipseg_settings, _build_clipseg),
}
