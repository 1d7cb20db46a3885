from typing import Any

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from semires.stages.cache_sam.generator import prompts as prompts_module
from semires.stages.cache_sam.generator.prompts import PromptGrid, WordPrompts, crops_of
from semires.stages.cache_sam.generator.proposer import WordModel
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of


def test_crops_of__image_then_quarters_that_overlap() -> None:
    settings = GeneratorSettings(crop_n_layers=1, crop_overlap_ratio=0.5)
    whole, *quarters = crops_of(80, 120, settings)
    assert (whole.size, whole.layer, whole.box_xyxy) == ((80, 120), 0, [0, 0, 120, 80])
    assert [crop.box_xyxy for crop in quarters] == [
        [0, 0, 80, 60],
        [0, 20, 80, 80],
        [40, 0, 120, 60],
        [40, 20, 120, 80],
    ]
    assert {crop.layer for crop in quarters} == {1}


def test_of_crop__points_of_a_grid_and_sams_embedding(random_sam: Sam) -> None:
    settings = GeneratorSettings(points_per_side=2, crop_n_layers=1, crop_n_points_downscale_factor=2)
    with torch.inference_mode():
        grid = PromptGrid(proposer_of(random_sam), settings)
        prompts = grid.of_crop((40, 60), 0)
        assert prompts.points_xy.tolist() == [[15, 10], [45, 10], [15, 30], [45, 30]]
        assert grid.of_crop((40, 60), 1).points_xy.tolist() == [[30, 20]]
        in_input = ResizeLongestSide(128).apply_coords(prompts.points_xy.numpy(), (40, 60))
        points = torch.from_numpy(in_input)[2:3, None]
        expected, _ = random_sam.prompt_encoder((points, torch.ones(1, 1)), None, None)
        assert torch.equal(prompts.tokens[0][2:3, 5:], expected)
        assert torch.equal(prompts.tokens[0][3, 0], random_sam.mask_decoder.iou_token.weight[0])
        assert len(prompts[1:3]) == 2
        assert torch.equal(prompts[1:3].tokens[1], prompts.tokens[1][1:3])


def test_of_crop__keeps_the_latest_sizes(random_sam: Sam) -> None:
    with torch.inference_mode():
        grid = PromptGrid(proposer_of(random_sam), GeneratorSettings(points_per_side=1))
        first = grid.of_crop((40, 60), 0)
        for height in range(1, prompts_module._MAX_GRIDS):
            grid.of_crop((height, 60), 0)
        assert grid.of_crop((40, 60), 0) is first
        grid.of_crop((41, 60), 0)
        assert grid.of_crop((40, 60), 0) is first
        one = grid.of_crop((1, 60), 0)  # the least recently used of one too many, so made anew
        for height in range(50, 50 + prompts_module._MAX_GRIDS):
            grid.of_crop((height, 60), 0)
        again = grid.of_crop((1, 60), 0)
        assert again is not one
        assert np.array_equal(again.points_xy, one.points_xy)


class Speller(WordModel):
    """Makes a token of each word: its letters' number."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed_word(self, word: str) -> tuple[torch.Tensor, ...]:
        self.asked.append(word)
        return (torch.tensor([[len(word)]]),)

    def _never(self, *given: object) -> Any:
        raise AssertionError("not asked here")

    load = encode = share = decode = logits = _never


def test_of_image__its_words_each_made_once() -> None:
    model = Speller()
    prompts = WordPrompts(model, {1: ["hat", "zebra"], 2: ["zebra"], 3: []})
    first = prompts.of_image(1)
    assert (len(first), [part.tolist() for part in first.tokens]) == (2, [[[3], [5]]])
    assert first.points_xy.shape == (2, 2)
    assert bool(first.points_xy.isnan().all())
    assert first[1:].tokens[0].tolist() == prompts.of_image(2).tokens[0].tolist() == [[5]]
    assert model.asked == ["hat", "zebra"]
    assert (len(prompts.of_image(3)), len(prompts.of_image(4))) == (0, 0)
