"""Values of a row or record of somebody else's file, checked as they are taken."""

import json
import math
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.instances import MAX_SIDE, field_of, is_plain_name


def json_field(row: dict[str, Any], key: str, where: str) -> dict[str, Any]:
    """The dict that `row[key]` holds as JSON text; InputError where it is none."""
    try:
        value = json.loads(field_of(row, key, str, where))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{where}: expected `{key}` as JSON text, found none ({error}); get the file again") from error
    if not isinstance(value, dict):
        raise InputError(f"{where}: expected `{key}` as a JSON object, found a {type(value).__name__}")
    return value


def numbers_field(row: dict[str, Any], key: str, where: str, *, count: int | None = None) -> list[float]:
    """The numbers of `row[key]`, all finite, `count` of them where it is given; InputError else."""
    value = row.get(key)
    is_numbers = isinstance(value, list) and all(
        isinstance(number, int | float) and not isinstance(number, bool) and math.isfinite(number) for number in value
    )
    if not is_numbers or (count is not None and len(value or ()) != count):
        what = "numbers" if count is None else f"{count} numbers"
        raise InputError(f"{where}: expected `{key}` as a list of {what}, found {str(value)[:80]}; get the file again")
    return list(value or ())


def texts_field(row: dict[str, Any], key: str, where: str) -> list[str]:
    """The texts of `row[key]`; InputError where it is no list of texts."""
    value = field_of(row, key, list, where)
    if not all(isinstance(text, str) for text in value):
        raise InputError(f"{where}: expected `{key}` as a list of texts, found {str(value)[:80]}; get the file again")
    return value


def same_field(record: dict[str, Any], key: str, expected: int, where: str, what: str) -> None:
    """InputError where `record[key]` of the record `what` is another number than the row says."""
    found = record.get(key)
    if type(found) is not int or found != expected:
        raise InputError(
            f"{where}: expected `{key}` {expected} in its {what}, found {found!r}; the row joins two records that do "
            "not belong together: get the file again"
        )


def size_field(record: dict[str, Any], where: str) -> tuple[int, int]:
    """`height` and `width` of an image record, within what a mask can have; InputError else."""
    height, width = field_of(record, "height", int, where), field_of(record, "width", int, where)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"{where}: expected sides of 1 to {MAX_SIDE} pixels, found {height}x{width}")
    return height, width


def name_field(record: dict[str, Any], key: str, where: str) -> str:
    """A file name without folders, which stays in the folder it is put into; InputError else."""
    name = field_of(record, key, str, where)
    if not is_plain_name(name):
        raise InputError(f"{where}: expected `{key}` as a plain file name, found {name!r}; get the file again")
    return name
