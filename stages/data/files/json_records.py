"""JSON files that hold long arrays of records, of which few are wanted: the others are let go as they are read.

COCO's instances.json has some hundred thousand annotations; as Python objects all at once they take many times the
file's size. So neither the file nor all of its records are ever in memory as a whole.
"""

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

WINDOW = 4 << 20  # characters in memory at a time; more where a single value is longer
_BLANKS = re.compile(r"[ \t\n\r]*")

Visit = Callable[[int, Any], None]


def load_records(path: Path, visits: Mapping[str, Visit], top: Visit | None = None) -> Any:
    """What the JSON in a file is; where its top is an object with an array under a name of `visits`, that array is
    empty in it, and `visits[name](index, record)` is called with each of its records. Where the top itself is an array
    and `top` is given, that is called with each, and the array is returned empty.

    Raises ValueError where the file is no JSON, OSError, and what a visit raises.
    """
    with path.open("rb") as file:
        encoding = json.detect_encoding(file.read(4))
    with path.open(encoding=encoding, errors="surrogatepass", newline="") as text:
        reader = _Reader(text)
        reader.skip("\ufeff")
        content: Any
        if top is not None and reader.skip("["):
            content = []
            _visit(reader, top)
        elif not reader.skip("{"):
            content = reader.value()
        else:
            content = {}
            more = not reader.skip("}")
            while more:
                name = reader.value()
                if not isinstance(name, str):
                    raise reader.error("expected a property name in double quotes")
                reader.expect(":")
                if name in visits and reader.skip("["):
                    content[name] = []
                    _visit(reader, visits[name])
                else:
                    content[name] = reader.value()
                more = reader.skip(",")
                if not more:
                    reader.expect("}")
        if reader.peek():
            raise reader.error("expected the end of the file")
    return content


def _visit(reader: "_Reader", visit: Visit) -> None:
    """Show the records of the array whose bracket was just read."""
    more = not reader.skip("]")
    index = 0
    while more:
        visit(index, reader.value())
        index += 1
        more = reader.skip(",")
        if not more:
            reader.expect("]")


class _Reader:
    """A place in a JSON text, of which a window is in memory."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._decode = json.JSONDecoder().raw_decode
        self._text, self._position, self._before = "", 0, 0

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            found = _BLANKS.match(self._text, self._position)
            self._position = self._position if found is None else found.end()
            if self._position < len(self._text) or not self._read_on():
                return self._text[self._position : self._position + 1]

    def skip(self, mark: str) -> bool:
        """Step over `mark` where it is what comes next; whether it is."""
        is_next = self.peek() == mark
        self._position += is_next
        return is_next

    def expect(self, mark: str) -> None:
        """Step over `mark`, which must come next."""
        if not self.skip(mark):
            raise self.error(f"expected '{mark}'")

    def value(self) -> Any:
        """Step over the next value, and return it."""
        self.peek()
        while True:
            try:
                value, end = self._decode(self._text, self._position)
            except json.JSONDecodeError as error:
                # It may go on beyond the window.
                if self._read_on():
                    continue
                self._position = error.pos
                raise self.error(error.msg) from error
            # So may a number.
            if end == len(self._text) and self._read_on():
                continue
            self._position = end
            return value

    def error(self, what: str) -> ValueError:
        """The error for what comes next."""
        return ValueError(f"{what}: character {self._before + self._position}")

    def _read_on(self) -> bool:
        """Let go what is behind and read as much again as is left, at least a window; whether there was any."""
        left = len(self._text) - self._position
        chunk = self._file.read(max(WINDOW, left))
        if not chunk:
            return False
        self._before += self._position
        self._text, self._position = self._text[self._position :] + chunk, 0
        return True
