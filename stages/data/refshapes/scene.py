"""A RefShapes scene: which objects stand where, and its picture with the visible mask of every object and part."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS, COLORS, SIZES

HEIGHT, WIDTH = 96, 128
NUM_OBJECTS = (3, 4)  # inclusive
# Occlusion is wanted, riddles are not: this much of every part stays visible.
MIN_VISIBLE = 0.7
# Seeds of a scene: [stream, seed, index]. A stream is a disjoint range: what the shipped weights were trained on can
# never be a scene of the benchmark.
STREAMS = {"train": 0, "val": 1, "testA": 2, "testB": 3, "sam": 100, "sam_check": 101, "backbone": 102}


@dataclass(frozen=True, kw_only=True)
class SceneObject:
    """One object: attributes in words, `center_xy` and `radius` in pixels, `angle` in radians, colours by part."""

    category: str
    size: str
    center_xy: tuple[float, float]
    radius: float
    angle: float
    part_colors: tuple[str, ...]

    @property
    def color(self) -> str:
        """The colour word of the object: that of its main part."""
        return self.part_colors[CATEGORIES[CATEGORY_IDS[self.category] - 1].main]

    @property
    def is_composite(self) -> bool:
        """Whether the object has parts of different colours."""
        return len(self.part_colors) > 1

    def describe(self) -> dict[str, Any]:
        """The object as plain values for `scenes.json`."""
        return {
            "category": self.category,
            "color": self.color,
            "size": self.size,
            "center_xy": list(self.center_xy),
            "is_composite": self.is_composite,
        }


@dataclass(frozen=True, kw_only=True)
class Scene:
    """Objects in drawing order and what they look like.

    `image` uint8 [H, W, 3] RGB; `object_masks` bool [N, H, W] visible pixels; `part_masks` bool [P, H, W] visible
    pixels with `part_owner` int64 [P], the object a part belongs to.
    """

    objects: tuple[SceneObject, ...]
    image: NDArray[np.uint8]
    object_masks: NDArray[np.bool_]
    part_masks: NDArray[np.bool_]
    part_owner: NDArray[np.int64]


def make_scene(stream: str, seed: int, index: int) -> Scene:
    """Draw scene `index` of a stream (a key of `STREAMS`); the same three arguments give the same scene, bit by bit."""
    rng = np.random.default_rng([STREAMS[stream], seed, index])
    num_objects = int(rng.integers(NUM_OBJECTS[0], NUM_OBJECTS[1] + 1))
    objects: list[SceneObject] = []
    owners = np.full((HEIGHT, WIDTH), -1, dtype=np.int64)  # number of the part that a pixel shows
    full_areas: list[int] = []  # of each part when nothing covers it
    part_owner: list[int] = []
    part_colors: list[str] = []
    for _ in range(num_objects * 30):
        if len(objects) == num_objects:
            break
        candidate = _draw_object(rng, objects)
        outlines = _outlines(candidate)
        trial, areas = owners.copy(), list(full_areas)
        for number, outline in enumerate(outlines, start=len(full_areas)):
            drawn = _fill(outline)
            trial[drawn] = number
            areas.append(int(drawn.sum()))
        visible = np.bincount(trial[trial >= 0], minlength=len(areas))
        if (visible >= MIN_VISIBLE * np.array(areas)).all() and not _touches_own_color(candidate, owners, part_colors):
            owners, full_areas = trial, areas
            part_owner += [len(objects)] * len(outlines)
            part_colors += candidate.part_colors
            objects.append(candidate)
    part_masks = owners[None] == np.arange(len(full_areas))[:, None, None]
    owner_array = np.array(part_owner, dtype=np.int64)
    object_masks = np.stack([part_masks[owner_array == n].any(axis=0) for n in range(len(objects))])
    image = _paint(rng, objects, part_masks)
    return Scene(
        objects=tuple(objects),
        image=image,
        object_masks=object_masks,
        part_masks=part_masks,
        part_owner=owner_array,
    )


def _touches_own_color(obj: SceneObject, owners: NDArray[np.int64], part_colors: list[str]) -> bool:
    """Whether a part would lie on or beside a part of the same colour, where nobody could see its outline."""
    center = np.array(obj.center_xy)
    for color, outline in zip(obj.part_colors, _outlines(obj), strict=True):
        around = owners[_fill(center + (outline - center) * 1.12)]
        if any(part_colors[number] == color for number in np.unique(around[around >= 0]).tolist()):
            return True
    return False


def _draw_object(rng: np.random.Generator, others: list[SceneObject]) -> SceneObject:
    category = CATEGORIES[int(rng.integers(len(CATEGORIES)))]
    color = str(rng.choice(list(COLORS)))
    if others and rng.random() < 0.45:
        # A second one of a kind or colour: what makes "left", "small" and the colour word necessary.
        twin = others[int(rng.integers(len(others)))]
        if rng.random() < 0.6:
            category = CATEGORIES[CATEGORY_IDS[twin.category] - 1]
        else:
            color = twin.color
    size = "small" if rng.random() < 0.5 else "big"
    radius = float(rng.uniform(*SIZES[size]))
    center = (float(rng.uniform(radius, WIDTH - radius)), float(rng.uniform(radius, HEIGHT - radius)))
    colors = [color] * len(category.parts)
    for number in range(len(category.parts)):
        if number != category.main:
            colors[number] = str(rng.choice([name for name in COLORS if name != color]))
    return SceneObject(
        category=category.name,
        size=size,
        center_xy=center,
        radius=radius,
        angle=float(rng.uniform(-0.2, 0.2)),
        part_colors=tuple(colors),
    )


def _outlines(obj: SceneObject) -> list[NDArray[np.float64]]:
    """The polygons of an object's parts in pixels, each float64 [N, 2] (x, y)."""
    cos, sin = np.cos(obj.angle), np.sin(obj.angle)
    turn = np.array([[cos, -sin], [sin, cos]]) * obj.radius
    parts = CATEGORIES[CATEGORY_IDS[obj.category] - 1].parts
    return [part.outline @ turn.T + np.array(obj.center_xy) for part in parts]


def _fill(outline: NDArray[np.float64]) -> NDArray[np.bool_]:
    canvas = Image.new("1", (WIDTH, HEIGHT))
    ImageDraw.Draw(canvas).polygon([(float(x), float(y)) for x, y in outline], fill=1)
    return np.array(canvas, dtype=bool)


def _clouds(rng: np.random.Generator, cells: int) -> NDArray[np.float64]:
    """Smooth noise in [-1, 1], float64 [H, W]: bicubic upsampling of a coarse random grid."""
    coarse = rng.uniform(-1, 1, size=(cells, cells)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=np.float64)


def _paint(rng: np.random.Generator, objects: list[SceneObject], part_masks: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Clouded grey-brown ground, every part in a shade of its colour with its own light and grain."""
    ground = rng.uniform(70, 150) + rng.uniform(-14, 14, size=3)
    picture = np.empty((HEIGHT, WIDTH, 3))
    picture[:] = ground + 26 * _clouds(rng, 5)[..., None] + 14 * _clouds(rng, 17)[..., None]
    colors = [color for obj in objects for color in obj.part_colors]
    for color, mask in zip(colors, part_masks, strict=True):
        shade = np.array(COLORS[color]) + rng.uniform(-18, 18, size=3)
        light = 1 + rng.uniform(0.04, 0.14) * _clouds(rng, int(rng.integers(2, 8)))
        picture[mask] = shade * light[mask][:, None]
    picture += rng.normal(0, 5, size=picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)
