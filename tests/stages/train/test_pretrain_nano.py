from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refshapes.scene import STREAMS, make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS, COLORS
from semires.stages.train.lavt import LAVT_NANO, Lavt, load_visual
from semires.stages.train.pretrain_nano import COLOR_NUMBERS, AttributeHead, draw_scenes, pretrain


def test_draw_scenes__every_pixel_has_its_objects_attributes() -> None:
    images, categories, colors = draw_scenes(3, 0, 64)
    assert images.shape == (3, 3, 64, 64)
    assert categories.shape == colors.shape == (3, 64, 64)
    assert {images.dtype, categories.dtype, colors.dtype} == {torch.uint8}
    for index in range(3):
        scene = make_scene("backbone", 0, index)
        assert torch.equal(images[index], torch.from_numpy(resize_image(scene.image, 64)).permute(2, 0, 1))
        ground = torch.ones(64, 64, dtype=torch.bool)
        for obj, mask in zip(scene.objects, scene.object_masks, strict=True):
            small = torch.from_numpy(resize_mask(mask, 64))
            assert (categories[index][small] == CATEGORY_IDS[obj.category]).all()
            assert (colors[index][small] == 1 + list(COLORS).index(obj.color)).all()
            ground &= ~small
        assert not categories[index][ground].any()
        assert not colors[index][ground].any()


def test_draw_scenes__of_a_stream_that_no_benchmark_split_uses() -> None:
    assert len(set(STREAMS.values())) == len(STREAMS)
    drawn = draw_scenes(1, 0, 64)[0][0]
    for split in ("train", "val", "testA", "testB"):
        other = torch.from_numpy(resize_image(make_scene(split, 0, 0).image, 64)).permute(2, 0, 1)
        assert not torch.equal(drawn, other)


def test_attribute_head__a_score_for_ground_and_every_attribute() -> None:
    head = AttributeHead((8, 16), width=4)
    category, color = head([torch.rand(2, 8, 16, 16), torch.rand(2, 16, 8, 8)], 32)
    assert category.shape == (2, len(CATEGORIES) + 1, 32, 32)
    assert color.shape == (2, len(COLORS) + 1, 32, 32)
    assert sorted(COLOR_NUMBERS.values()) == list(range(1, len(COLORS) + 1))


def test_pretrain__writes_a_trunk_that_the_nano_model_loads(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("one", "two"):
        pretrain(4, epochs=2, batch_size=2, learning_rate=1e-3, seed=3, output=tmp_path / name)
    out = capsys.readouterr().out
    assert "epoch 2/2" in out
    first, second = load_file(tmp_path / "one"), load_file(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)
    lavt = Lavt(LAVT_NANO)
    load_visual(lavt, tmp_path / "one")
    assert all(torch.equal(tensor, first[name]) for name, tensor in lavt.visual.state_dict().items())


def test_pretrain__loss_falls_on_a_few_scenes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pretrain(4, epochs=12, batch_size=4, learning_rate=2e-2, seed=0, output=tmp_path / "weights")
    lines = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("epoch")]
    losses = [float(line[line.index("loss") + 1]) for line in lines]
    assert len(losses) == 12
    assert losses[-1] < 0.9 * losses[0]
