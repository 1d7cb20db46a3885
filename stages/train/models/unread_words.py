"""What a model does not read of expressions: words behind its most tokens, and those that its vocabulary lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds
    from semires.stages.train.models.tokenization import Tokenizer


@dataclass(frozen=True, kw_only=True)
class UnreadWords:
    """Of `num_expressions`, `num_cut` lose words to `max_tokens`, and of `num_unknown` a word that is read is [UNK]."""

    num_expressions: int
    num_cut: int
    num_unknown: int
    max_tokens: int

    def line(self, what: str) -> str | None:
        """One line on the expressions of `what`, with shares; None where all of them are read as they are."""
        parts = []
        if self.num_cut:
            parts.append(
                f"{self._share(self.num_cut)} lose their last words, behind the model's {self.max_tokens} tokens"
            )
        if self.num_unknown:
            parts.append(f"{self._share(self.num_unknown)} have words that its vocabulary lacks, read as [UNK]")
        return f"{what}: of {self.num_expressions:,} expressions {', '.join(parts)}" if parts else None

    def _share(self, num: int) -> str:
        return f"{num:,} ({100 * num / self.num_expressions:.1f}%)"


def count_unread(tokenizer: Tokenizer, expressions: Iterable[str]) -> UnreadWords:
    """Count the expressions that are not read whole.

    A tokenizer takes words one by one, and a data set has some thousand different ones: each is asked about once.
    """
    of_words: dict[str, list[bool]] = {}
    num_expressions = num_cut = num_unknown = 0
    for expression in expressions:
        are_unknown: list[bool] = []
        for word in expression.split():
            if word not in of_words:
                of_words[word] = tokenizer.unknown(word)
            are_unknown += of_words[word]
        num_expressions += 1
        num_cut += len(are_unknown) > tokenizer.num_read
        num_unknown += any(are_unknown[: tokenizer.num_read])
    return UnreadWords(
        num_expressions=num_expressions, num_cut=num_cut, num_unknown=num_unknown, max_tokens=tokenizer.max_tokens
    )


def unread_line(tokenizer: Tokenizer, expression: str) -> str | None:
    """One line on what a model does not read of a single expression; None where that is nothing."""
    num_cut, num_unknown = tokenizer.lost(expression)
    parts = []
    if num_cut:
        parts.append(f"the last {num_cut} of its {len(tokenizer.tokens(expression))} word pieces are not read")
    if num_unknown:
        words = [word for word in expression.split() if any(tokenizer.unknown(word))]
        parts.append(f"the model's vocabulary lacks {', '.join(words)}")
    remedy = " or ".join(["say it shorter"] * bool(num_cut) + ["use the model's words"] * bool(num_unknown))
    return f"of the expression {' and '.join(parts)}: {remedy}" if parts else None


def unread_lines(tokenizer: Tokenizer, expressions: Iterable[str], *, num_named: int) -> Iterator[str]:
    """`unread_line` of each of several expressions, then how many there are beyond the first `num_named`."""
    lines = [line for text in expressions if (line := unread_line(tokenizer, text)) is not None]
    yield from lines[:num_named]
    if len(lines) > num_named:
        yield f"{len(lines) - num_named} more expressions are not read whole"
