from collections.abc import Mapping
from typing import Any, Literal

import pytest

from semires.pipeline.study.typed import as_type, type_name


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (1, float, 1.0),
        (True, bool, True),
        ("x", str, "x"),
        ([1, 2], tuple[int, ...], (1, 2)),
        ([0.9, 1], tuple[float, float], (0.9, 1.0)),
        ("cpi", Literal["iom", "cpi"], "cpi"),
        (None, int | None, None),
        ("none", int | None, None),
        ("none", str | None, "none"),  # the name of a row, for instance
        (3, str | int | None, 3),
        ({"a": [1]}, Mapping[str, tuple[float, ...]], {"a": (1.0,)}),
        ({"a": 1}, Any, {"a": 1}),
    ],
)
def test_as_type__fits(value: Any, kind: Any, expected: Any) -> None:
    found = as_type(value, kind)
    assert (found, type(found)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        (True, int, "expected a whole number, found True"),
        (True, float, "expected a number, found True"),
        (1, bool, "expected true or false, found 1"),
        (1.5, int, "expected a whole number, found 1.5"),
        ("0.5", float | None, "expected a number or \"none\", found '0.5'"),
        (None, str | int, "expected text or a whole number, found None"),
        ("cpi", tuple[str, ...], "expected a list, each text, found 'cpi'"),
        ([1, 2, 3], tuple[float, float], "expected a list, each a number"),
        ("magic", Literal["iom", "cpi"], "expected one of iom, cpi, found 'magic'"),
        ([1], Mapping[str, int], "expected a table, each value a whole number"),
    ],
)
def test_as_type__says_what_it_expected(value: Any, kind: Any, expected: str) -> None:
    with pytest.raises(ValueError, match=expected.replace("(", r"\(")):
        as_type(value, kind)


def test_type_name__of_what_has_none() -> None:
    assert type_name(Any) == "typing.Any"
