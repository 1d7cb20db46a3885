"""A second reading of RefShapes' expressions: from their text and scenes.json, sharing nothing with the package."""

from collections.abc import Callable, Sequence
from math import hypot
from typing import Any

import pytest

Referents = Callable[[str, Sequence[dict[str, Any]]], list[int]]

COLOR_WORDS = {"red", "green", "blue", "yellow", "purple", "white"}
KINDS = {"ball", "box", "triangle", "star", "house", "tree", "car", "mushroom"}
PLACES = {"left", "right", "top", "bottom", "middle"}
FILLERS = {"thing", "one", "in", "at", "on", "the"}
IMAGE_WIDTH, IMAGE_HEIGHT = 128, 96


@pytest.fixture(scope="session")
def referents() -> Referents:
    """`referents(text, objects)`: numbers of the objects, as scenes.json describes them, that a text is true of."""
    return _referents


def _referents(text: str, objects: Sequence[dict[str, Any]]) -> list[int]:
    place, fitting = None, list(range(len(objects)))
    for word in text.split():
        if word in ("small", "big"):
            fitting = [n for n in fitting if objects[n]["size"] == word]
        elif word in COLOR_WORDS:
            fitting = [n for n in fitting if objects[n]["color"] == word]
        elif word in KINDS:
            fitting = [n for n in fitting if objects[n]["category"] == word]
        elif word in PLACES:
            assert place is None, f"two places in {text!r}"
            place = word
        else:
            assert word in FILLERS, f"unknown word {word!r} in {text!r}"
    if place is None or not fitting:
        return fitting
    # Pixels from the place: from an edge of the image, or from its centre.
    away = sorted((_distance(place, *objects[n]["center_xy"]), n) for n in fitting)
    if len(away) == 1:
        edges = {"left": IMAGE_WIDTH / 2 - 4, "right": IMAGE_WIDTH / 2 - 4, "middle": 24}
        return [away[0][1]] if away[0][0] < edges.get(place, IMAGE_HEIGHT / 2 - 4) else []
    return [away[0][1]] if away[1][0] - away[0][0] >= 8 else []


def _distance(place: str, x: float, y: float) -> float:
    return {
        "left": x,
        "right": IMAGE_WIDTH - x,
        "top": y,
        "bottom": IMAGE_HEIGHT - y,
        "middle": hypot(x - IMAGE_WIDTH / 2, y - IMAGE_HEIGHT / 2),
    }[place]
