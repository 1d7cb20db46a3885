"""RES models by name: LAVT's sizes, CLIPSeg, or a factory of the user's own."""

from importlib import resources
from pathlib import Path
from typing import Any

from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer

from semires.stages.data.errors import InputError
from semires.stages.data.files.factories import is_factory
from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.clipseg_nano import IMAGE_SIZE, clipseg_nano
from semires.stages.train.models.factory import model_of_factory
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_SIZES, LavtConfig
from semires.stages.train.models.pretrained import load_bert, load_swin, read_pretrained
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.models.trunk_weights import load_trunk

SWIN_SOURCES = {
    "tiny": "microsoft/swin-tiny-patch4-window7-224",
    "small": "microsoft/swin-small-patch4-window7-224",
    "base": "microsoft/swin-base-patch4-window12-384-in22k",
    "large": "microsoft/swin-large-patch4-window12-384-in22k",
}
"""The pre-trained Swin of each of LAVT's sizes on the Hugging Face hub; nano's is in the package."""
BERT_SOURCE = "google-bert/bert-base-uncased"
CLIPSEG_SOURCE = "CIDAS/clipseg-rd64-refined"
MODEL_NAMES = (*LAVT_SIZES, "clipseg", "clipseg-nano")
NANO_NAMES = ("nano", "clipseg-nano")
"""The models whose vocabulary and pre-trained trunk are in the package."""


def weights_folder() -> Path:
    """Where the files of the nano models lie: their vocabulary, `nano_vocab.txt`, and their pre-trained trunks."""
    return Path(str(resources.files("semires.stages.train.models") / "weights"))


def check_model(
    name: str, *, window: int | None = None, image_size: int | None = None, gradient_checkpointing: bool = False
) -> None:
    """InputError unless `build_model` knows the name, or it is that of a factory, and the model has these options."""
    if name not in MODEL_NAMES and not is_factory(name):
        raise InputError(f"--model: expected {', '.join(MODEL_NAMES)} or PACKAGE.MODULE:FACTORY, found {name!r}")
    if gradient_checkpointing and name not in LAVT_SIZES:
        raise InputError(f"--grad-checkpointing: expected one of LAVT's sizes, found --model {name}; leave it out")
    if name in LAVT_SIZES:
        LAVT_SIZES[name].resized(window=window, image_size=image_size)
    elif window is not None:
        raise InputError(f"--window: expected one of LAVT's sizes, found --model {name}; leave it out")
    elif is_factory(name) and image_size is not None:
        raise InputError(f"--image-size: expected a model of semires, found {name}, which sets its own; leave it out")


def build_model(
    name: str,
    *,
    pretrained: bool,
    swin: str | None = None,
    bert: str | None = None,
    clipseg: str | None = None,
    window: int | None = None,
    image_size: int | None = None,
    gradient_checkpointing: bool = False,
) -> ResModel:
    """The model `name`, on CPU in training mode.

    pretrained: give it its pre-trained weights; otherwise all weights are random, to be loaded over. swin, bert: where
    LAVT's backbones and BERT's vocabulary come from; clipseg: likewise; local folders or hub names, None for the
    published ones. window: side of Swin's attention windows, None for the size's own. image_size: side of the images,
    None for the model's own. gradient_checkpointing: see `Lavt`.

    InputError for an unknown name, for weights or a vocabulary that cannot be had, and for an option that the model
    does not have.
    """
    check_model(name, window=window, image_size=image_size, gradient_checkpointing=gradient_checkpointing)
    if is_factory(name):
        return model_of_factory(name, pretrained=pretrained)
    if name == "clipseg":
        return _build_clipseg(clipseg or CLIPSEG_SOURCE, pretrained, image_size)
    if name == "clipseg-nano":
        return _build_clipseg_nano(pretrained, image_size)
    config = LAVT_SIZES[name].resized(window=window, image_size=image_size)
    if name == "nano":
        tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=config.max_tokens)
    else:
        tokenizer = Tokenizer.from_pretrained(bert or BERT_SOURCE, max_tokens=config.max_tokens)
    _check_vocabulary(name, tokenizer, config)
    lavt = Lavt(config, tokenizer)
    lavt.gradient_checkpointing = gradient_checkpointing
    if pretrained and name == "nano":
        load_trunk(lavt.visual, weights_folder() / "nano_swin.safetensors")
    elif pretrained:
        load_swin(lavt, swin or SWIN_SOURCES[name])
        load_bert(lavt, bert or BERT_SOURCE)
    return lavt


def image_size_of(name: str, *, clipseg: str | None = None, image_size: int | None = None) -> int:
    """The side of the images of the model that `build_model` makes of the same arguments, mostly without making it."""
    if image_size is not None:
        return image_size
    if name in LAVT_SIZES:
        return LAVT_SIZES[name].image_size
    if name == "clipseg-nano":
        return IMAGE_SIZE
    return build_model(name, pretrained=False, clipseg=clipseg).image_size


def _check_vocabulary(name: str, tokenizer: Tokenizer, config: LavtConfig) -> None:
    if tokenizer.vocab_size > config.vocab_size:
        raise InputError(
            f"expected a vocabulary of at most {config.vocab_size} tokens for LAVT-{name}, found "
            f"{tokenizer.vocab_size}; use the tokenizer of its BERT"
        )


def _build_clipseg(source: str, pretrained: bool, image_size: int | None) -> ClipSeg:
    config, network = read_pretrained(
        "CLIPSeg", source, CLIPSegConfig, CLIPSegForImageSegmentation, with_weights=pretrained
    )
    length: Any = config.text_config.max_position_embeddings
    tokenizer = Tokenizer.from_pretrained(source, max_tokens=length, kind=CLIPTokenizer)
    if network is None:
        network = CLIPSegForImageSegmentation(config)
    return ClipSeg(network.train(), tokenizer, image_size)


def _build_clipseg_nano(pretrained: bool, image_size: int | None) -> ClipSeg:
    model = clipseg_nano(weights_folder() / "nano_vocab.txt", image_size)
    if pretrained:
        load_trunk(model.vision, weights_folder() / "clipseg_nano_vision.safetensors")
    return model
