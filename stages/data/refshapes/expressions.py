"""Short referring expressions in RefCOCO's manner, each true of exactly one object of its scene.

An expression is kept as its attributes, so that its truth can be computed from the scene's description; `text` is one
of several ways to say it ("small red house left", "left house", "red thing on the right").
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from semires.stages.data.refshapes.scene import HEIGHT, WIDTH, SceneObject
from semires.stages.data.refshapes.shapes import CATEGORY_IDS, COLORS, SIZES

PLACES = ("left", "right", "top", "bottom", "middle")
# How often each attribute is mentioned where it need not be: people name the thing and its colour, and stop there.
MENTIONED = {"size": 0.3, "color": 0.8, "category": 0.85, "place": 0.35}
# Pixels by which a place must win over the runner-up: nobody says "left ball" of two balls one above the other.
MARGIN = 8.0
# Every word an expression can hold; the nano tokenizer's vocabulary is made of these and of letters.
WORDS = tuple(
    sorted(
        {*SIZES, *COLORS, *CATEGORY_IDS, *PLACES, "thing", "one", "in", "at", "on", "the"},
    )
)


@dataclass(frozen=True, kw_only=True)
class Expression:
    """Attributes that the referent has; None is an attribute that is not mentioned."""

    size: str | None = None
    color: str | None = None
    category: str | None = None
    place: str | None = None

    @property
    def num_attributes(self) -> int:
        """How many attributes are mentioned."""
        return sum(value is not None for value in (self.size, self.color, self.category, self.place))


def denotes(expression: Expression, objects: Sequence[SceneObject]) -> list[int]:
    """Indices of the objects that an expression is true of.

    Among the objects that fit size, colour and category, a place picks the extreme one (the middle: the one nearest
    to the image's centre) if it leads by `MARGIN` pixels; where only one object fits, the place must hold in the image.
    """
    fitting = [
        index
        for index, obj in enumerate(objects)
        if expression.size in (None, obj.size)
        and expression.color in (None, obj.color)
        and expression.category in (None, obj.category)
    ]
    if expression.place is None or not fitting:
        return fitting
    scores = [_place_score(expression.place, objects[index]) for index in fitting]
    order = np.argsort(scores)[::-1]
    if len(fitting) == 1:
        return fitting if scores[0] > 0 else []
    leads = scores[order[0]] - scores[order[1]] >= MARGIN
    return [fitting[order[0]]] if leads else []


def _place_score(place: str, obj: SceneObject) -> float:
    """How far an object lies towards a place, in pixels; positive where the place holds in the whole image."""
    x, y = obj.center_xy[0] - WIDTH / 2, obj.center_xy[1] - HEIGHT / 2
    if place == "middle":
        return 24.0 - float(np.hypot(x, y))
    return {"left": -x, "right": x, "top": -y, "bottom": y}[place] - MARGIN / 2


def unique_expressions(objects: Sequence[SceneObject], index: int) -> list[Expression]:
    """All attribute choices that are true of object `index` alone, fewest attributes first."""
    obj = objects[index]
    choices = product((None, obj.size), (None, obj.color), (None, obj.category), (None, *PLACES))
    found = []
    for size, color, category, place in choices:
        expression = Expression(size=size, color=color, category=category, place=place)
        if expression.num_attributes and denotes(expression, objects) == [index]:
            found.append(expression)
    return sorted(found, key=lambda expression: expression.num_attributes)


def draw_expressions(
    rng: np.random.Generator, objects: Sequence[SceneObject], index: int, most: int = 3
) -> list[tuple[Expression, str]]:
    """1 to `most` different expressions of object `index` with their texts, drawn as `MENTIONED` has it.

    [] if no choice of attributes is true of it alone.
    """
    options = unique_expressions(objects, index)
    if not options:
        return []
    weights = np.array(
        [
            math.prod(share if getattr(option, name) else 1 - share for name, share in MENTIONED.items())
            for option in options
        ]
    )
    count = min(int(rng.integers(1, most + 1)), len(options))
    chosen = rng.choice(len(options), size=count, replace=False, p=weights / weights.sum())
    return [(options[number], say(rng, options[number])) for number in sorted(chosen)]


def say(rng: np.random.Generator, expression: Expression) -> str:
    """One way of putting an expression into words."""
    words = [word for word in (expression.size, expression.color) if word]
    words.append(expression.category or str(rng.choice(["thing", "one"])))
    if expression.place is None:
        return " ".join(words)
    manner = int(rng.integers(4))
    if manner == 0:
        return " ".join([expression.place, *words])
    if manner == 1:
        return " ".join([*words, expression.place])
    preposition = {"middle": "in", "top": "at", "bottom": "at"}.get(expression.place, "on")
    article = ["the"] if manner == 2 else []
    return " ".join([*words, preposition, *article, expression.place])
