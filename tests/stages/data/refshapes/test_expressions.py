from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from semires.stages.data.refshapes.expressions import (
    MARGIN,
    MENTIONED,
    PLACES,
    WORDS,
    Expression,
    denotes,
    draw_expressions,
    say,
    unique_expressions,
)
from semires.stages.data.refshapes.scene import HEIGHT, WIDTH, SceneObject, make_scene
from semires.stages.data.refshapes.shapes import CATEGORY_IDS, COLORS, SIZES
from semires.stages.train.models.build import weights_folder
from semires.stages.train.models.tokenization import build_vocab


def ball(color: str, x: float, y: float, size: str = "big") -> SceneObject:
    return SceneObject(category="ball", size=size, center_xy=(x, y), radius=20.0, angle=0.0, part_colors=(color,))


def test_denotes__attributes() -> None:
    objects = [ball("red", 20, 20), ball("red", 60, 20, "small"), ball("blue", 100, 20)]
    assert denotes(Expression(color="red"), objects) == [0, 1]
    assert denotes(Expression(color="red", size="small"), objects) == [1]
    assert denotes(Expression(category="ball"), objects) == [0, 1, 2]
    assert denotes(Expression(category="box"), objects) == []
    assert denotes(Expression(category="box", place="left"), objects) == []
    assert denotes(Expression(), []) == []


@pytest.mark.parametrize(("place", "index"), [("left", 0), ("right", 1), ("top", 2), ("bottom", 3), ("middle", 4)])
def test_denotes__place_among_several(place: str, index: int) -> None:
    objects = [ball("red", x, y) for x, y in ((20, 48), (110, 48), (64, 15), (64, 80), (64, 48))]
    assert denotes(Expression(place=place), objects) == [index]


def test_denotes__place_needs_a_lead() -> None:
    def leftmost(lead: float) -> list[int]:
        return denotes(Expression(place="left"), [ball("red", 30 + lead, 20), ball("red", 30, 70)])

    assert leftmost(MARGIN) == [1]
    assert leftmost(-MARGIN) == [0]
    assert leftmost(MARGIN - 0.01) == []
    assert leftmost(0) == []


def test_denotes__place_of_the_only_one_must_hold_in_the_image() -> None:
    for place, (x, y) in {"left": (-1, 0), "right": (1, 0), "top": (0, -1), "bottom": (0, 1)}.items():
        for pixels, found in ((30, [0]), (2, []), (-30, [])):
            obj = ball("red", WIDTH / 2 + pixels * x, HEIGHT / 2 + pixels * y)
            assert denotes(Expression(place=place), [obj]) == found, (place, pixels)
    assert denotes(Expression(place="middle"), [ball("red", WIDTH / 2 + 10, HEIGHT / 2 - 10)]) == [0]
    assert denotes(Expression(place="middle"), [ball("red", WIDTH / 2 + 20, HEIGHT / 2 - 20)]) == []


def test_unique_expressions__true_of_one_by_a_second_reading(referents: Callable[..., list[int]]) -> None:
    rng = np.random.default_rng(0)
    seen: Counter[str] = Counter()
    for number in range(15):
        objects = make_scene("val", 5, number).objects
        described = [obj.describe() for obj in objects]
        for index in range(len(objects)):
            expressions = unique_expressions(objects, index)
            assert len(set(expressions)) == len(expressions)
            counts = [expression.num_attributes for expression in expressions]
            assert all(fewer <= more for fewer, more in pairwise(counts))
            assert not counts or counts[0] >= 1
            for expression in expressions:
                text = say(rng, expression)
                assert referents(text, described) == [index], text
                seen.update(text.split())
    assert set(seen) == set(WORDS)


def test_unique_expressions__all_of_them(referents: Callable[..., list[int]]) -> None:
    """What is not among the unique expressions is true of no object or of several."""
    rng = np.random.default_rng(0)
    objects = make_scene("val", 0, 3).objects
    described = [obj.describe() for obj in objects]
    unique = [unique_expressions(objects, index) for index in range(len(objects))]
    for size in (None, *SIZES):
        for color in (None, *COLORS):
            for category in (None, *CATEGORY_IDS):
                for place in (None, *PLACES):
                    expression = Expression(size=size, color=color, category=category, place=place)
                    found = referents(say(rng, expression), described)
                    if expression.num_attributes:
                        assert [index for index, own in enumerate(unique) if expression in own] == (
                            found if len(found) == 1 else []
                        ), expression


def test_unique_expressions__none_for_twins() -> None:
    twins = [ball("red", 60, 40), ball("red", 63, 42)]
    assert unique_expressions(twins, 0) == []
    assert draw_expressions(np.random.default_rng(0), twins, 0) == []


def test_draw_expressions__different_and_few() -> None:
    counts = Counter()
    for number in range(60):
        objects = make_scene("val", 0, number % 20).objects
        drawn = draw_expressions(np.random.default_rng(number), objects, 0, most=2)
        assert len({expression for expression, _ in drawn}) == len(drawn)
        assert all(denotes(expression, objects) == [0] for expression, _ in drawn)
        counts[len(drawn)] += 1
    assert set(counts) <= {0, 1, 2}
    assert min(counts[1], counts[2]) > 10


def test_draw_expressions__attributes_as_often_as_people_mention_them() -> None:
    mentioned: Counter[str] = Counter()
    total = 0
    for number in range(300):
        objects = make_scene("val", 0, number % 30).objects
        for expression, _ in draw_expressions(np.random.default_rng(number), objects, number % len(objects), most=1):
            total += 1
            mentioned.update(name for name in MENTIONED if getattr(expression, name))
    # What an expression must say to be true of one object alone comes on top, least for what is said anyway.
    for name, share in MENTIONED.items():
        assert share - 0.1 < mentioned[name] / total < share + 0.25, name


def test_draw_expressions__same_generator_same_texts() -> None:
    objects = make_scene("val", 0, 0).objects
    assert draw_expressions(np.random.default_rng(3), objects, 1) == draw_expressions(
        np.random.default_rng(3), objects, 1
    )


def test_say__ways_to_say_it() -> None:
    rng = np.random.default_rng(0)

    def texts(expression: Expression) -> set[str]:
        return {say(rng, expression) for _ in range(80)}

    assert texts(Expression(size="small", color="red", category="house")) == {"small red house"}
    assert texts(Expression(color="red")) == {"red thing", "red one"}
    assert texts(Expression(category="house", place="left")) == {
        "left house",
        "house left",
        "house on the left",
        "house on left",
    }
    assert "ball in the middle" in texts(Expression(category="ball", place="middle"))
    assert "ball at the top" in texts(Expression(category="ball", place="top"))


def test_words__are_in_the_shipped_vocabulary() -> None:
    lines = (weights_folder() / "nano_vocab.txt").read_text(encoding="utf-8").split("\n")
    assert lines.pop() == ""
    assert lines == build_vocab(WORDS)
    assert set(WORDS) <= set(lines)
