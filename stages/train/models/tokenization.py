"""Expressions to BERT tokens: from a vocabulary file of our own or from a BERT folder."""

import os
import string
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from torch import Tensor
from transformers import BertTokenizer

from semires.stages.data.errors import InputError

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

# What keyboards and word processors put into English text beside ASCII.
TYPOGRAPHIC_MARKS = "‘’“”–—…"


class Tokenizer:
    """Lower-casing WordPiece tokenizer with a fixed number of tokens; pickles, so data-loader workers can hold it.

    tokenizer: one of transformers, a BertTokenizer as a rule. max_tokens: length of every row, [CLS] and [SEP]
    included, 20 in LAVT. keep_sep: whether an expression that is too long keeps its [SEP] and loses a word more; the
    original LAVT cuts [SEP] away with the words, so its checkpoints never saw such a row end in one.
    """

    def __init__(self, tokenizer: Any, *, max_tokens: int = 20, keep_sep: bool = True) -> None:
        if max_tokens < 3:
            raise InputError(f"expected max_tokens of at least 3 ([CLS], a word, [SEP]), found {max_tokens}: raise it")
        self.max_tokens = max_tokens
        self.keep_sep = keep_sep
        self._tokenizer = tokenizer

    @classmethod
    def from_vocab(cls, path: str | os.PathLike[str], *, max_tokens: int = 20, keep_sep: bool = True) -> "Tokenizer":
        """Tokenizer of a vocabulary file: UTF-8, one token a line, its line number (from 0) its id.

        Raises InputError when the file is missing, holds a token twice or lacks one of the special tokens.
        """
        path = Path(path)
        try:
            # Only line feeds end a token: splitlines would also split at rarer separators.
            tokens = path.read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(
                f"expected a vocabulary file (UTF-8, one token a line) at {path}, found none that can be read "
                f"({error}): check the path"
            ) from error
        ids = {token: number for number, token in enumerate(tokens)}
        if len(ids) != len(tokens):
            twice = next(token for number, token in enumerate(tokens) if ids[token] != number)
            raise InputError(f"expected each token once in {path}, found {twice!r} twice: write the vocabulary again")
        missing = [token for token in SPECIAL_TOKENS if token not in ids]
        if missing:
            raise InputError(
                f"expected {' '.join(SPECIAL_TOKENS)} in {path}, found no {' '.join(missing)}: "
                "use a BERT vocabulary, or write one with build_vocab"
            )
        return cls(BertTokenizer(vocab=ids), max_tokens=max_tokens, keep_sep=keep_sep)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str],
        *,
        max_tokens: int = 20,
        keep_sep: bool = True,
        kind: Any = BertTokenizer,
    ) -> "Tokenizer":
        """Tokenizer of a BERT: a local folder in the transformers format or a hub name like `bert-base-uncased`.

        kind: its class in transformers, of networks that are no BERT. Raises InputError when it cannot be read.
        """
        what = kind.__name__.removesuffix("Tokenizer").upper()
        try:
            tokenizer = kind.from_pretrained(source)
        except (OSError, ValueError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise InputError(
                f"expected a {what} tokenizer (local folder or hub name) at {source}, found none that can be read "
                f"({reason}): check the path or the network"
            ) from error
        # An empty folder does not fail in transformers: it gives a tokenizer that knows the special tokens only.
        if len(tokenizer) <= len(SPECIAL_TOKENS):
            raise InputError(
                f"expected a {what} vocabulary in {source}, found no words: put vocab.txt or tokenizer.json there"
            )
        return cls(tokenizer, max_tokens=max_tokens, keep_sep=keep_sep)

    def save(self, folder: str | os.PathLike[str]) -> dict[str, Any]:
        """Write the tokenizer's files in transformers' format; returns what opens them again, for JSON.

        That is `class`, its name in transformers, `max_tokens` and `keep_sep`; `from_pretrained` takes all three.
        """
        self._tokenizer.save_pretrained(folder)
        return {"class": type(self._tokenizer).__name__, "max_tokens": self.max_tokens, "keep_sep": self.keep_sep}

    @property
    def vocab_size(self) -> int:
        """Number of tokens; ids are below it. The text encoder's table needs at least as many rows."""
        return len(self._tokenizer)

    def __call__(self, expressions: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(input_ids, attention_mask), both int64 [B, max_tokens].

        A row is [CLS] words [SEP], then [PAD]; a longer expression loses its last words, and without `keep_sep` its
        [SEP]. The mask is 1 at tokens, 0 at padding. An empty expression is [CLS] [SEP]. InputError for text with half
        a character, as bytes that are no UTF-8 and damaged JSON give.
        """
        ids = torch.full((len(expressions), self.max_tokens), self._tokenizer.pad_token_id, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        # One at a time: the batch call starts threads in Rust, after which forked data-loader workers print warnings.
        for row, expression in enumerate(expressions):
            tokens = self._encode(expression)
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
        return ids, mask

    def _encode(self, expression: str) -> list[int]:
        try:
            if self.keep_sep:
                ids: list[int] = self._tokenizer.encode(expression, truncation=True, max_length=self.max_tokens)
                return ids
            ids = self._tokenizer.encode(expression)[: self.max_tokens]
            return ids
        except TypeError as error:  # its word for what is no UTF-8
            raise _no_text(expression) from error

    def tokens(self, expression: str) -> list[str]:
        """The word pieces of an expression, without special tokens and untruncated: what the model can read of it."""
        try:
            tokens: list[str] = self._tokenizer.tokenize(expression)
            return tokens
        except TypeError as error:
            raise _no_text(expression) from error

    def lost(self, expression: str) -> tuple[int, int]:
        """How many of an expression's word pieces the model does not see: those behind `max_tokens`, and those among
        the others that are no word to it ([UNK])."""
        are_unknown = self.unknown(expression)
        return max(len(are_unknown) - self.num_read, 0), sum(are_unknown[: self.num_read])

    @property
    def num_read(self) -> int:
        """The most word pieces of an expression that the model reads: beside them it has [CLS] and, if kept, [SEP]."""
        return self.max_tokens - (2 if self.keep_sep else 1)

    def unknown(self, expression: str) -> list[bool]:
        """Of each word piece of an expression whether it is no word to the model ([UNK])."""
        return [token == self._tokenizer.unk_token for token in self.tokens(expression)]


def _no_text(expression: str) -> InputError:
    return InputError(f"expected an expression in UTF-8, found {expression!r}: write it in this encoding")


def build_vocab(words: Iterable[str]) -> list[str]:
    """Vocabulary for `Tokenizer.from_vocab`, in id order; write it with one token a line.

    words: words or whole texts; they are lower-cased, stripped of accents and split as BERT does. The list holds the
    special tokens, every ASCII letter, digit and punctuation mark (and a few typographic ones), the `##` pieces of
    letters and digits, then the sorted words. So any English text becomes tokens without [UNK]: an unknown word is
    spelt. Punctuation needs no `##` pieces, as BERT cuts words at it; upper case needs no tokens at all.
    """
    normalizer, splitter = BertNormalizer(lowercase=True), BertPreTokenizer()
    letters = string.ascii_lowercase + string.digits
    fixed = [*SPECIAL_TOKENS, *letters, *string.punctuation, *TYPOGRAPHIC_MARKS, *(f"##{letter}" for letter in letters)]
    found = {word for text in words for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text))}
    return [*fixed, *sorted(found.difference(fixed))]
