"""LAVT with its tokenizer as a run's config names them, and the files in the package that nano needs."""

from importlib import resources
from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt_config import LAVT_BASE, LAVT_NANO, LavtConfig
from semires.stages.train.models.pretrained import load_bert, load_swin
from semires.stages.train.models.tokenization import Tokenizer

LAVT_SIZES: dict[str, LavtConfig] = {"base": LAVT_BASE, "nano": LAVT_NANO}


def weights_folder() -> Path:
    """Where the files of the nano model lie: `nano_swin.safetensors` and `nano_vocab.txt`."""
    return Path(str(resources.files("semires.stages.train.models") / "weights"))


def build_model(config: TrainConfig, *, pretrained: bool) -> tuple[Lavt, Tokenizer]:
    """The LAVT of a run and its tokenizer, on CPU in training mode.

    pretrained: give the backbones their pre-trained weights; otherwise all weights are random, to be loaded over.
    InputError where weights or vocabulary cannot be had.
    """
    lavt_config = LAVT_SIZES[config.model]
    if config.model == "nano":
        tokenizer = Tokenizer.from_vocab(weights_folder() / "nano_vocab.txt", max_tokens=lavt_config.max_tokens)
    else:
        tokenizer = Tokenizer.from_pretrained(config.bert, max_tokens=lavt_config.max_tokens)
    if tokenizer.vocab_size > lavt_config.vocab_size:
        raise InputError(
            f"expected a vocabulary of at most {lavt_config.vocab_size} tokens for LAVT-{config.model}, found "
            f"{tokenizer.vocab_size}; use the tokenizer of its BERT"
        )
    lavt = Lavt(lavt_config)
    if pretrained and config.model == "nano":
        lavt.visual.load(weights_folder() / "nano_swin.safetensors")
    elif pretrained:
        load_swin(lavt, config.swin)
        load_bert(lavt, config.bert)
    return lavt, tokenizer
