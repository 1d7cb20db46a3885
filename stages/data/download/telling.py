"""What a download says while it works."""

from collections.abc import Callable
from dataclasses import dataclass


def _nothing(*told: object) -> None:
    """Say nothing."""


@dataclass(frozen=True, kw_only=True)
class Tell:
    """`say`: a line of text. `on_progress`: what is being done, how much of it is done, of how much."""

    say: Callable[[str], None] = _nothing
    on_progress: Callable[[str, int, int], None] = _nothing
