"""A line of own data: its fields, checked before anything that they point at is opened.

    {"image": "photos/1.jpg", "expressions": ["left dog", "the brown dog"], "split": "train",
     "mask": [[10, 20, 60, 20, 60, 80]], "ref": 17, "category": "dog"}

`mask`, `ref` and `category` may be left out; docs/own-data.md says what each holds.
"""

import json
import re
import reprlib
from dataclasses import dataclass
from typing import Any

from semires.stages.data.errors import InputError

KEYS = ("image", "expressions", "split", "mask", "ref", "category")
SPLIT = re.compile(r"train|val|test[A-Za-z0-9_-]*")
MAX_ID = 2**63 - 1  # ids go through int64


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One ref as its line has it: `number` counts the file's lines from 1, `mask` and the file that `image` names are
    not looked at yet."""

    number: int
    image: str
    expressions: tuple[str, ...]
    split: str
    mask: str | list[Any] | dict[str, Any] | None
    ref: int | None
    category: str | None

    @property
    def ref_id(self) -> int:
        """Its own number, else that of its line."""
        return self.number if self.ref is None else self.ref


def parse_row(number: int, line: bytes) -> Row:
    """The row in a line; InputError, without the line's number, for anything else."""
    try:
        content = json.loads(line.decode("utf-8"), object_pairs_hook=_without_repeats)
    except UnicodeDecodeError as error:
        raise InputError(f"expected UTF-8, found {error.reason} at byte {error.start + 1}; save it as UTF-8") from error
    except InputError:
        raise
    except json.JSONDecodeError as error:
        # Its own text counts lines too, from this one.
        raise InputError(f"expected a JSON object, found an error at column {error.colno}: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"expected a JSON object, found one that cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"expected a JSON object, found {_shown(content)}")
    for key in content:
        if key not in KEYS:
            raise InputError(f"expected only the keys {', '.join(KEYS)}, found {_shown(key)}; rename or remove it")
    split = content.get("split")
    if not isinstance(split, str) or SPLIT.fullmatch(split) is None:
        raise InputError(f"expected `split` as train, val, test or a name that begins with test, found {_shown(split)}")
    mask = content.get("mask")
    if mask is not None and not isinstance(mask, str | list | dict):
        raise InputError(f"expected `mask` as polygons, run lengths or a PNG's path, found {_shown(mask)}")
    if mask is None and split != "train":
        raise InputError(f"expected a `mask`, against which {split} is measured, found none; only train may lack it")
    return Row(
        number=number,
        image=_file_name(content.get("image"), "image"),
        expressions=_expressions(content.get("expressions")),
        split=split,
        mask=_file_name(mask, "mask") if isinstance(mask, str) else mask,
        ref=_ref(content.get("ref")),
        category=_category(content.get("category")),
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise InputError(f"expected each key once, found {_shown(repeated)} twice; remove one")
    return found


def _file_name(value: Any, key: str) -> str:
    if not isinstance(value, str) or not value or "\0" in value:
        raise InputError(f"expected `{key}` as the path of a file, found {_shown(value)}")
    return value


def _expressions(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not value:
        raise InputError(f"expected `expressions` as a list of one or more texts, found {_shown(value)}")
    return tuple(_text(expression, "expressions") for expression in value)


def _category(value: Any) -> str | None:
    return None if value is None else _text(value, "category")


def _text(value: Any, key: str) -> str:
    """A text without blanks around it."""
    text = value.strip() if isinstance(value, str) else ""
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which no file or terminal takes
        text = ""
    if not text:
        raise InputError(f"expected `{key}` to hold text, found {_shown(value)}")
    return text


def _ref(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_ID:
        raise InputError(f"expected `ref` as a whole number from 0 to {MAX_ID}, found {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    return "none" if value is None else reprlib.repr(value)
