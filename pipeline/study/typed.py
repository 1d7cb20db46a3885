"""Plain values of a TOML file as the types that our dataclasses declare."""

import types
from collections.abc import Mapping
from typing import Any, Literal, Union, get_args, get_origin

NONE = "none"
"""What a TOML file, which has no null, says for None, where text means nothing else."""
_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    types.NoneType: "nothing",
}


def as_type(value: Any, kind: Any) -> Any:
    """`value` as one of the type `kind`: a list becomes a tuple, a whole number a float where one is declared.

    kind: bool, int, float, str, None, Any, a Literal, a union, a tuple or a Mapping of these. ValueError, with what was
    expected, for a value of another.
    """
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin is Literal and value in arguments:
        return value
    if origin in (Union, types.UnionType):
        if _has_none(arguments) and value == NONE:
            return None
        for argument in arguments:
            try:
                return as_type(value, argument)
            except ValueError:
                continue
    if origin is tuple and isinstance(value, list | tuple):
        of_each = [arguments[0]] * len(value) if arguments[-1] is ... else list(arguments)
        if len(of_each) == len(value):
            return tuple(map(as_type, value, of_each))
    if origin is Mapping and isinstance(value, Mapping):
        return {as_type(name, arguments[0]): as_type(inner, arguments[1]) for name, inner in value.items()}
    if kind is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if kind in (bool, int, str) and type(value) is kind:
        return value
    if kind is types.NoneType and value is None:
        return None
    raise ValueError(f"expected {type_name(kind)}, found {value!r}")


def _has_none(arguments: tuple[Any, ...]) -> bool:
    return types.NoneType in arguments and str not in arguments


def type_name(kind: Any) -> str:
    """What a value of a type is, in words."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin in (Union, types.UnionType):
        names = [type_name(argument) for argument in arguments if argument is not types.NoneType]
        return " or ".join([*names, *([f'"{NONE}"'] if _has_none(arguments) else [])])
    if origin is tuple:
        return f"a list, each {type_name(arguments[0])}"
    if origin is Mapping:
        return f"a table, each value {type_name(arguments[1])}"
    return _NAMES.get(kind, str(kind))
