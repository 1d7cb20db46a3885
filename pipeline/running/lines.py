"""What a process prints, told line by line to the one that has the display."""

from collections.abc import Callable
from typing import IO, cast


def lines_to(say: Callable[[str], None]) -> IO[str]:
    """A file for a console to print to; each line is handed to `say`."""
    return cast(IO[str], _Lines(say))  # a console asks no more of a file


class _Lines:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def write(self, text: str) -> int:
        if text.strip():  # more than the end of a line
            self._say(text.rstrip("\n"))
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""
