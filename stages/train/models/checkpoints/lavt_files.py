"""LAVT's and SemiRES' checkpoints become a Lavt, and a Lavt becomes one of theirs again, bit by bit."""

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import BertConfig, BertModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.lavt_layout import (
    LAST_GATES,
    index_names,
    lavt_config,
    lavt_pieces,
    optional_tensors,
)
from semires.stages.train.models.checkpoints.origin import Origin
from semires.stages.train.models.checkpoints.pieces import check_tensors, to_ours, to_theirs
from semires.stages.train.models.checkpoints.position_index import position_index_of, restore_position_index
from semires.stages.train.models.checkpoints.reading import BERT_PREFIX, Checkpoint
from semires.stages.train.models.checkpoints.replacing import replacing_file
from semires.stages.train.models.checkpoints.swin import INDEX, position_index
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.pretrained import BERT_FIELDS, check_values, read_pretrained
from semires.stages.train.models.tokenization import Tokenizer


def lavt_of_checkpoint(
    checkpoint: Checkpoint, bert: str | os.PathLike[str] | None = None, *, fusion_heads: Sequence[int] | None = None
) -> Lavt:
    """The LAVT of a checkpoint, on the CPU in evaluation mode, with what it needs for the way back in `origin`.

    bert: where its tokenizer and its number of heads come from, a folder in transformers' format or a hub name; None
    for neither, which is enough for the way back. fusion_heads: see `lavt_config`. InputError for tensors that are
    none of LAVT's, that are missing or misshapen, and for another BERT's tokenizer.
    """
    path, tensors = checkpoint.path, checkpoint.tensors
    if checkpoint.layout == "swin":
        raise InputError(f"expected a checkpoint of LAVT or SemiRES, found one of Swin in {path}: give LAVT's")
    bert_config = None if bert is None else _read_bert_config(bert)
    config = lavt_config(
        tensors,
        checkpoint.arguments,
        path,
        fusion_heads=fusion_heads,
        text_heads=None if bert_config is None else bert_config.num_attention_heads,
    )
    with torch.device("meta"):
        sizes = Lavt(config).state_dict()
    pieces = lavt_pieces(config.swin_depths, sizes)
    expected, optional = to_theirs(pieces, sizes), optional_tensors(config)
    check_tensors("LAVT", path, tensors, expected, optional)
    lavt = Lavt(config, None if bert is None else _read_tokenizer(bert, config.max_tokens, config.vocab_size))
    if bert_config is not None:
        found = {field: getattr(bert_config, field) for field in BERT_FIELDS}
        check_values("BERT", str(bert), lavt.text.bert_config, found)
    lavt.load_state_dict(to_ours(pieces, tensors))
    own_index = position_index(config.swin_window)
    unread = {
        name: tensors[name].clone()
        for name in optional
        if name in tensors and not (name.endswith(INDEX) and torch.equal(tensors[name], own_index))
    }
    restore_position_index(lavt, unread, path)
    always = (*index_names(config.swin_depths), *LAST_GATES)
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    lavt.origin = Origin(
        layout=checkpoint.layout,
        file=path.name,
        sha256=sha256,
        epoch=checkpoint.epoch,
        absent=tuple(name for name in always if name not in tensors),
        unread=unread,
    )
    return lavt.eval()


def original_tensors(lavt: Lavt) -> dict[str, Tensor]:
    """The state dict of the original code's `lavt_one` with these weights.

    Of a converted model it has the checkpoint's keys and bits. Of any other, the last stage's gate, which the original
    never uses, is zeros as where its training starts, and BERT has no pooler, as in a checkpoint of the original's
    training.
    """
    config, origin = lavt.config, lavt.origin
    state = {name: tensor.detach().cpu() for name, tensor in lavt.state_dict().items()}
    tensors = to_theirs(lavt_pieces(config.swin_depths, state), state)
    tensors |= position_index_of(lavt)
    tensors |= {
        name: torch.zeros(tensor.shape) for name, tensor in optional_tensors(config).items() if name in LAST_GATES
    }
    if origin is not None:
        tensors |= origin.unread
        tensors = {name: tensor for name, tensor in tensors.items() if name not in origin.absent}
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def save_lavt(lavt: Lavt, path: str | os.PathLike[str], *, one: bool) -> None:
    """Write the checkpoint file that the original code's `test.py --resume` reads; whole or not at all.

    one: the layout of `--model lavt_one`; else that of `--model lavt`, model and BERT apart. It holds the weights
    alone, neither optimizer nor arguments.
    """
    tensors = original_tensors(lavt)
    if one:
        content = {"model": OrderedDict(tensors)}
    else:
        model = OrderedDict((name, t) for name, t in tensors.items() if not name.startswith(BERT_PREFIX))
        bert = OrderedDict((n.removeprefix(BERT_PREFIX), t) for n, t in tensors.items() if n.startswith(BERT_PREFIX))
        content = {"model": model, "bert_model": bert}
    with replacing_file(Path(path)) as temporary:
        torch.save(content, temporary)


def _read_bert_config(bert: str | os.PathLike[str]) -> BertConfig | None:
    # A folder may hold the vocabulary alone.
    if Path(bert).is_dir() and not (Path(bert) / "config.json").is_file():
        return None
    config, _ = read_pretrained("BERT", bert, BertConfig, BertModel, with_weights=False)
    return config


def _read_tokenizer(bert: str | os.PathLike[str], max_tokens: int, vocab_size: int) -> Tokenizer:
    # LAVT's loader cuts an expression that is too long wherever it ends.
    tokenizer = Tokenizer.from_pretrained(bert, max_tokens=max_tokens, keep_sep=False)
    if tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"expected a vocabulary of at most {vocab_size} tokens in {bert}, found {tokenizer.vocab_size}: "
            "give the BERT that the checkpoint was trained with (--bert)"
        )
    return tokenizer
