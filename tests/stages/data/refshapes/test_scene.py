import numpy as np
import pytest

from semires.stages.data.refshapes.scene import HEIGHT, NUM_OBJECTS, STREAMS, WIDTH, Scene, SceneObject, make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, COLORS, SIZES

PARTS = {category.name: category.parts for category in CATEGORIES}
MAIN = {category.name: category.main for category in CATEGORIES}


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [make_scene("train", 0, index) for index in range(40)]


def same(one: Scene, other: Scene) -> bool:
    return one.objects == other.objects and all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("image", "object_masks", "part_masks", "part_owner")
    )


def is_inside(outline: np.ndarray) -> np.ndarray:
    """Which pixels of the image lie in a polygon, by counting edges to the left of each; bool [H, W]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    inside = np.zeros((HEIGHT, WIDTH), dtype=bool)
    for (x0, y0), (x1, y1) in zip(outline, np.roll(outline, -1, axis=0), strict=True):
        if y0 != y1:
            inside ^= ((y0 <= y) != (y1 <= y)) & (x0 + (y - y0) * (x1 - x0) / (y1 - y0) < x)
    return inside


def grown(mask: np.ndarray, outside: bool = False) -> np.ndarray:
    """The mask and all pixels that touch it: Pillow draws a polygon's outline too, and rounds it to pixels.

    outside: whether what lies around the image belongs to the mask.
    """
    padded = np.pad(mask, 1, constant_values=outside)
    return np.logical_or.reduce(
        [padded[1 + y : 1 + y + HEIGHT, 1 + x : 1 + x + WIDTH] for y in (-1, 0, 1) for x in (-1, 0, 1)]
    )


def uncovered_parts(obj: SceneObject) -> list[np.ndarray]:
    cos, sin = np.cos(obj.angle), np.sin(obj.angle)
    outlines = []
    for part in PARTS[obj.category]:
        x, y = part.outline.T * obj.radius
        outlines.append(np.stack([cos * x - sin * y + obj.center_xy[0], sin * x + cos * y + obj.center_xy[1]], axis=1))
    return [is_inside(outline) for outline in outlines]


def test_make_scene__same_arguments_same_scene(scenes: list[Scene]) -> None:
    for index in (0, 7, 31):
        assert same(make_scene("train", 0, index), scenes[index])


def test_make_scene__other_arguments_other_scene(scenes: list[Scene]) -> None:
    others = [make_scene(stream, 0, 0) for stream in STREAMS if stream != "train"]
    others += [make_scene("train", 1, 0), scenes[1]]
    images = [scene.image.tobytes() for scene in [scenes[0], *others]]
    assert len(set(images)) == len(images)
    assert len({scene.objects for scene in [scenes[0], *others]}) == len(images)


def test_streams__are_disjoint() -> None:
    assert len(set(STREAMS.values())) == len(STREAMS)
    with pytest.raises(KeyError):
        make_scene("test", 0, 0)


def test_make_scene__shapes_and_types(scenes: list[Scene]) -> None:
    for scene in scenes:
        num_objects, num_parts = len(scene.objects), sum(len(obj.part_colors) for obj in scene.objects)
        assert NUM_OBJECTS[0] <= num_objects <= NUM_OBJECTS[1]
        assert (scene.image.shape, scene.image.dtype) == ((HEIGHT, WIDTH, 3), np.uint8)
        assert (scene.object_masks.shape, scene.object_masks.dtype) == ((num_objects, HEIGHT, WIDTH), np.bool_)
        assert (scene.part_masks.shape, scene.part_masks.dtype) == ((num_parts, HEIGHT, WIDTH), np.bool_)
        assert (scene.part_owner.shape, scene.part_owner.dtype) == ((num_parts,), np.int64)
    # Every number of objects is drawn.
    assert len({len(scene.objects) for scene in scenes}) == NUM_OBJECTS[1] - NUM_OBJECTS[0] + 1


def test_make_scene__masks_are_disjoint_and_parts_make_objects(scenes: list[Scene]) -> None:
    for scene in scenes:
        assert scene.part_masks.sum(axis=0).max() == 1
        for number, mask in enumerate(scene.object_masks):
            assert np.array_equal(mask, scene.part_masks[scene.part_owner == number].any(axis=0))
            assert (scene.part_owner == number).sum() == len(PARTS[scene.objects[number].category])


def test_make_scene__most_of_every_part_is_visible(scenes: list[Scene]) -> None:
    covered = 0
    for scene in scenes:
        uncovered = [part for obj in scene.objects for part in uncovered_parts(obj)]
        for visible, whole in zip(scene.part_masks, uncovered, strict=True):
            assert visible.sum() >= 0.62 * whole.sum()
            covered += bool(visible.sum() < 0.9 * whole.sum())
    # Occlusion is wanted.
    assert covered > 10


def test_make_scene__later_objects_cover_earlier_ones(scenes: list[Scene]) -> None:
    for scene in scenes:
        last = np.logical_or.reduce(uncovered_parts(scene.objects[-1]))
        inner = ~grown(~last, outside=True)
        assert inner.sum() > 50
        assert scene.object_masks[-1][inner].all()


def test_make_scene__objects_fit_their_words(scenes: list[Scene]) -> None:
    objects = [obj for scene in scenes for obj in scene.objects]
    for obj in objects:
        low, high = SIZES[obj.size]
        assert low <= obj.radius < high
        assert obj.radius <= obj.center_xy[0] <= WIDTH - obj.radius
        assert obj.radius <= obj.center_xy[1] <= HEIGHT - obj.radius
        assert obj.is_composite == (len(PARTS[obj.category]) > 1)
        assert obj.color == obj.part_colors[MAIN[obj.category]]
        # The other parts differ from the colour word, or there would be nothing to unite.
        assert obj.part_colors.count(obj.color) == 1
    assert {obj.category for obj in objects} == set(PARTS)
    assert {obj.color for obj in objects} == set(COLORS)
    assert {obj.size for obj in objects} == set(SIZES)


def test_make_scene__parts_show_their_colour(scenes: list[Scene]) -> None:
    names = list(COLORS)
    means = np.array([COLORS[name] for name in names], dtype=float)
    for scene in scenes:
        colors = [color for obj in scene.objects for color in obj.part_colors]
        for color, mask in zip(colors, scene.part_masks, strict=True):
            nearest = np.abs(means - scene.image[mask].mean(axis=0)).sum(axis=1).argmin()
            assert names[nearest] == color


def test_describe__plain_values(scenes: list[Scene]) -> None:
    obj = scenes[0].objects[0]
    assert obj.describe() == {
        "category": obj.category,
        "color": obj.color,
        "size": obj.size,
        "center_xy": [obj.center_xy[0], obj.center_xy[1]],
        "is_composite": obj.is_composite,
    }
