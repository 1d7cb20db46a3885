from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refshapes.scene import HEIGHT, STREAMS, WIDTH, make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, COLORS, SIZES
from semires.stages.train.models.build import NANO_NAMES, build_model
from semires.stages.train.models.clipseg import ClipSeg
from semires.stages.train.models.pretrain_nano import (
    CHANNELS,
    GROUND,
    GROUND_DEPTH,
    NOTHING,
    AttributeHead,
    attribute_loss,
    draw_scenes,
    pretrain,
)
from semires.stages.train.models.trunk_weights import load_trunk


def test_draw_scenes__points_well_inside_tell_attributes_and_no_outline() -> None:
    images, points, attributes = draw_scenes(4, 0, 64)
    assert images.shape == (4, 3, 64, 64)
    assert points.shape == (4, 64, 64)
    assert (images.dtype, points.dtype, attributes.dtype) == (torch.uint8, torch.uint8, torch.float32)
    for index in range(4):
        scene = make_scene("backbone", 0, index)
        assert torch.equal(images[index], torch.from_numpy(resize_image(scene.image, 64)).permute(2, 0, 1))
        ground = np.ones((64, 64), dtype=bool)
        for number, (obj, mask) in enumerate(zip(scene.objects, scene.object_masks, strict=True)):
            small = resize_mask(mask, 64)
            ground &= ~small
            told = points[index].numpy() == number
            assert told.any()
            assert (small | ~told).all()
            # The rim says nothing: that is what the masks are learned for.
            assert told.sum() < 0.4 * small.sum()
            assert not (told & _grown(~small, 1)).any()
            category, color, size, x, y = attributes[index, number].tolist()
            assert CATEGORIES[int(category)].name == obj.category
            assert list(COLORS)[int(color)] == obj.color
            assert list(SIZES)[int(size)] == obj.size
            assert ((x + 1) / 2 * WIDTH, (y + 1) / 2 * HEIGHT) == pytest.approx(obj.center_xy, abs=1e-3)
        on_ground = points[index].numpy() == GROUND
        assert on_ground.any()
        assert not (on_ground & _grown(~ground, GROUND_DEPTH - 1)).any()
        told = on_ground | (points[index].numpy() < len(scene.objects))
        assert (points[index].numpy()[~told] == NOTHING).all()


def _grown(mask: np.ndarray, steps: int) -> np.ndarray:
    """The mask and what lies within so many steps of it."""
    for _ in range(steps):
        around = np.pad(mask, 1)
        mask = mask | around[:-2, 1:-1] | around[2:, 1:-1] | around[1:-1, :-2] | around[1:-1, 2:]
    return mask


def test_draw_scenes__of_a_stream_that_no_benchmark_split_uses() -> None:
    assert len(set(STREAMS.values())) == len(STREAMS)
    drawn = draw_scenes(1, 0, 64)[0][0]
    for split in ("train", "val", "testA", "testB"):
        other = torch.from_numpy(resize_image(make_scene(split, 0, 0).image, 64)).permute(2, 0, 1)
        assert not torch.equal(drawn, other)


def test_attribute_head__scores_at_the_finest_positions() -> None:
    head = AttributeHead((8, 16), width=4)
    scores = head([torch.rand(2, 8, 16, 16), torch.rand(2, 16, 8, 8)])
    assert scores.shape == (2, len(CATEGORIES) + 1 + len(COLORS) + len(SIZES) + 2, 16, 16)

    finer = AttributeHead((8,), scale=2, width=4)
    assert finer([torch.rand(2, 8, 16, 16)]).shape == (2, sum(CHANNELS), 32, 32)


def _points() -> tuple[Tensor, Tensor]:
    """One image of 2x2 points: object 1, ground and two that show nothing; its object is of number 3, 2, 1."""
    points = torch.tensor([[[1, GROUND], [NOTHING, NOTHING]]], dtype=torch.uint8)
    attributes = torch.zeros(1, 4, 5)
    attributes[0, 1] = torch.tensor([3, 2, 1, 0.5, -0.25])
    return points, attributes


def _right_scores() -> Tensor:
    scores = torch.zeros(1, sum(CHANNELS), 2, 2)
    category, color, size, place = scores.split(CHANNELS, dim=1)
    category[0, 3, 0, 0] = color[0, 2, 0, 0] = size[0, 1, 0, 0] = 30
    category[0, len(CATEGORIES), 0, 1] = 30
    place[0, :, 0, 0] = torch.tensor([0.5, -0.25])
    return scores


def test_attribute_loss__nothing_to_lose_where_every_point_is_right() -> None:
    loss, right = attribute_loss(_right_scores(), *_points())
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert right.tolist() == [1, 1, 1, 0]


@pytest.mark.parametrize(
    ("channels", "at", "says"),
    [
        (slice(0, len(CATEGORIES) + 1), (0, 0), [0.0, 1, 1, 0]),  # the object's category
        (slice(len(CATEGORIES) + 1, -4), (0, 0), [1.0, 0, 1, 0]),  # its colour
        (slice(-4, -2), (0, 0), [1.0, 1, 0, 0]),  # its size
        (slice(-2, None), (0, 0), [1.0, 1, 1, 0.375]),  # its place: both coordinates 0
        (slice(0, len(CATEGORIES) + 1), (0, 1), [1.0, 1, 1, 0]),  # the ground
    ],
)
def test_attribute_loss__each_attribute_counts(channels: slice, at: tuple[int, int], says: list[float]) -> None:
    scores = _right_scores()
    scores[0, channels, at[0], at[1]] = 0
    loss, right = attribute_loss(scores, *_points())
    assert loss.item() > 0.1
    assert right.tolist() == pytest.approx(says)


def test_attribute_loss__points_that_show_nothing_do_not_count() -> None:
    scores = _right_scores()
    scores[0, :, 1] = 50 * torch.randn(sum(CHANNELS), 2)
    assert attribute_loss(scores, *_points())[0].item() == pytest.approx(0, abs=1e-6)


def test_attribute_loss__ground_counts_a_tenth() -> None:
    """Category's loss alone, by hand: one object point of weight 1, one ground point of weight 0.1."""
    scores = _right_scores()
    scores[0, : CHANNELS[0]] = torch.randn(CHANNELS[0], 2, 2)
    of_object = F.cross_entropy(scores[:, : CHANNELS[0], 0, 0], torch.tensor([3]))
    of_ground = F.cross_entropy(scores[:, : CHANNELS[0], 0, 1], torch.tensor([len(CATEGORIES)]))
    expected = (of_object + 0.1 * of_ground) / 1.1
    assert attribute_loss(scores, *_points())[0].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("model", NANO_NAMES)
def test_pretrain__writes_a_trunk_that_the_nano_model_loads(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("one", "two"):
        pretrain(4, epochs=2, batch_size=2, learning_rate=1e-3, seed=3, output=tmp_path / name, model=model)
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    first, second = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    built = build_model(model, pretrained=False)
    trunk = built.vision if isinstance(built, ClipSeg) else built.visual
    load_trunk(trunk, tmp_path / "one")
    assert all(torch.equal(tensor, first[name]) for name, tensor in trunk.state_dict().items())


def test_pretrain__loss_falls_on_a_few_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(4, epochs=12, batch_size=4, learning_rate=2e-2, seed=0, output=tmp_path / "weights")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    losses = [float(line[line.index("loss") + 1]) for line in lines]
    assert len(losses) == 12
    assert losses[-1] < 0.9 * losses[0]
