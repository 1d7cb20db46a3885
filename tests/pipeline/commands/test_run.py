"""`semires figure` from the outside."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

Semires = Callable[..., Any]
Refused = Callable[..., str]


def test_figure__a_name_of_no_picture_is_refused_first(
    semires: Semires, assert_refused: Refused, tmp_path: Path
) -> None:
    for name in ("x", "x.txt", "."):
        assert_refused(semires("figure", "run", "--output", name), "--output: expected the name of a picture file")
    assert list(tmp_path.iterdir()) == []
