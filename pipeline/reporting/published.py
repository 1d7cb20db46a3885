"""The paper's numbers (Yang et al., ICML 2024), which measured ones stand beside; they lie in `published.toml`."""

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, kw_only=True)
class PublishedNumbers:
    """A row of a published table at one share of labels: a value for each column; ValueError for what is none.

    table: "Table 1" to "Table 9", "Figure 6", "Labeling cost". split: the data set. share: of the train images that is
    labeled, (0, 1]. unit: of the values.
    """

    table: str
    split: str
    row: str
    share: float
    columns: tuple[str, ...]
    values: tuple[float, ...]
    unit: str = "oIoU %"

    def __post_init__(self) -> None:
        texts = (self.table, self.split, self.row, self.unit, *self.columns)
        are_texts = all(isinstance(text, str) and text for text in texts)
        if not (are_texts and len(set(self.columns)) == len(self.columns) == len(self.values) > 0):
            raise ValueError(f"expected texts, and a value for each of the columns, which differ, found {self}")
        if not all(type(value) in (int, float) and math.isfinite(value) for value in (self.share, *self.values)):
            raise ValueError(f"expected finite numbers, found {self}")
        if not 0 < self.share <= 1:
            raise ValueError(f"expected a share above 0 and at most 1, found {self}")


def parse_numbers(content: Mapping[str, Any]) -> tuple[PublishedNumbers, ...]:
    """The rows of a TOML file's content, in its order. ValueError for anything else, and for a number given twice."""
    rows = content.get("numbers")
    if content.keys() != {"numbers"} or not isinstance(rows, list):
        raise ValueError(f"expected tables [[numbers]] and nothing else, found {', '.join(content)}")
    found = []
    for row in rows:
        try:
            of_columns = {name: tuple(row[name]) for name in ("columns", "values")}
            found.append(PublishedNumbers(**row | of_columns))
        except (TypeError, KeyError) as error:
            raise ValueError(f"expected a published row, found {row}: {error}") from error
    known = set()
    for numbers in found:
        for column in numbers.columns:
            cell = (numbers.table, numbers.split, numbers.row, numbers.share, column)
            if cell in known:
                raise ValueError(f"expected each number once, found two of {cell}")
            known.add(cell)
    return tuple(found)


@cache
def published_numbers() -> tuple[PublishedNumbers, ...]:
    """All that the paper has, in its order."""
    file = resources.files("semires.pipeline.reporting") / "published.toml"
    return parse_numbers(tomllib.loads(file.read_text(encoding="utf-8")))


def published(table: str, split: str, row: str, share: float | None, column: str) -> float | None:
    """One of the paper's numbers; None where it has none (RefShapes, other shares).

    share: None for the only one that the table has of the data set's row; None is returned where it has several.
    """
    found = [
        numbers.values[numbers.columns.index(column)]
        for numbers in published_numbers()
        if (numbers.table, numbers.split, numbers.row) == (table, split, row)
        and share in (None, numbers.share)
        and column in numbers.columns
    ]
    return found[0] if len(found) == 1 else None
