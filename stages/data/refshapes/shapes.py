"""The categories of RefShapes and their geometry, in unit coordinates.

A category is a list of parts; a part is a polygon in a box of [-1, 1] x [-1, 1], x to the right and y down, later
parts drawn over earlier ones. Composites have parts of different colours, so that SAM proposes the parts as well as
the whole and a matcher has something to unite (CPI); an object is named by the colour of its main part.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One polygon of a category: `outline` float64 [N, 2], (x, y) in unit coordinates."""

    name: str
    outline: FloatArray


@dataclass(frozen=True, kw_only=True)
class Category:
    """A kind of object; `parts[main]` gives the object its colour word."""

    name: str
    parts: tuple[Part, ...]
    main: int = 0

    @property
    def is_composite(self) -> bool:
        """Whether the object consists of parts of different colours."""
        return len(self.parts) > 1


def _polygon(*points: tuple[float, float]) -> FloatArray:
    return np.array(points, dtype=np.float64)


def _ellipse(
    center: tuple[float, float], radii: tuple[float, float], start: float = 0.0, stop: float = 2 * np.pi
) -> FloatArray:
    angles = np.linspace(start, stop, 33)
    return np.stack([center[0] + radii[0] * np.cos(angles), center[1] + radii[1] * np.sin(angles)], axis=1)


def _star() -> FloatArray:
    angles = -np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.45)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _rectangle(left: float, top: float, right: float, bottom: float) -> FloatArray:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


CATEGORIES: tuple[Category, ...] = (
    Category(name="ball", parts=(Part(name="ball", outline=_ellipse((0, 0), (0.95, 0.95))),)),
    Category(name="box", parts=(Part(name="box", outline=_rectangle(-0.85, -0.85, 0.85, 0.85)),)),
    Category(
        name="triangle", parts=(Part(name="triangle", outline=_polygon((0, -0.95), (0.98, 0.85), (-0.98, 0.85))),)
    ),
    Category(name="star", parts=(Part(name="star", outline=_star() * 1.1),)),
    Category(
        name="house",
        parts=(
            Part(name="wall", outline=_rectangle(-0.8, -0.15, 0.8, 1.0)),
            Part(name="roof", outline=_polygon((0, -1.0), (1.05, -0.1), (-1.05, -0.1))),
        ),
    ),
    Category(
        name="tree",
        parts=(
            Part(name="trunk", outline=_rectangle(-0.42, 0.1, 0.42, 1.1)),
            Part(name="crown", outline=_ellipse((0, -0.38), (0.9, 0.68))),
        ),
        main=1,
    ),
    Category(
        name="car",
        parts=(
            Part(name="cabin", outline=_polygon((-0.6, -0.85), (0.5, -0.85), (0.85, 0.05), (-0.85, 0.05))),
            Part(name="body", outline=_rectangle(-1.15, 0.0, 1.15, 0.65)),
        ),
        main=1,
    ),
    Category(
        name="mushroom",
        parts=(
            Part(name="stem", outline=_polygon((-0.4, 0.0), (0.4, 0.0), (0.55, 1.05), (-0.55, 1.05))),
            Part(name="cap", outline=_ellipse((0, 0.1), (1.0, 1.05), np.pi, 2 * np.pi)),
        ),
        main=1,
    ),
)
CATEGORY_IDS = {category.name: number for number, category in enumerate(CATEGORIES, start=1)}

# Mean RGB of each colour word; a scene draws every part's own shade around it.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (205, 45, 45),
    "green": (50, 160, 60),
    "blue": (50, 85, 210),
    "yellow": (225, 205, 50),
    "purple": (145, 60, 175),
    "white": (238, 238, 238),
}
# Radius of an object in pixels, [low, high).
SIZES: dict[str, tuple[float, float]] = {"small": (14.0, 16.5), "big": (22.0, 27.0)}
