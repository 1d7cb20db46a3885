"""What a model is asked about an image: its crops, and in each crop a grid of points, each one prompt; or words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from segment_anything.utils.amg import build_all_layer_point_grids, generate_crop_boxes

from semires.stages.cache_sam.generator.proposer import Proposer, Tokens, WordModel
from semires.stages.cache_sam.generator.settings import GeneratorSettings

# Grids kept, one for each size of crop met lately: data sets repeat few sizes. A grid of 1,024 points is 15 MB for SAM.
_MAX_GRIDS = 16
# Words kept that were met lately: SAM 3's take 32 KiB each.
_MAX_WORDS = 2048


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of an image that SAM sees as an image of its own, in the image's pixels, right and bottom exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int
    layer: int
    """0 is the whole image, layer n one of 2^n x 2^n crops."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def box_xyxy(self) -> list[int]:
        """x0, y0, x1, y1."""
        return [self.x0, self.y0, self.x1, self.y1]


def crops_of(height: int, width: int, settings: GeneratorSettings) -> list[Crop]:
    """The crops of an image in SAM's order: the whole image, then layer by layer, each column by column."""
    boxes, layers = generate_crop_boxes((height, width), settings.crop_n_layers, settings.crop_overlap_ratio)
    return [Crop(x0=x0, y0=y0, x1=x1, y1=y1, layer=n) for (x0, y0, x1, y1), n in zip(boxes, layers, strict=True)]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prompts:
    """The prompts of one crop: `points_xy` float64 [P, 2] in the crop's pixels, NaN for words; the model's `tokens`."""

    points_xy: torch.Tensor
    tokens: Tokens

    def __len__(self) -> int:
        return len(self.points_xy)

    def __getitem__(self, some: slice | torch.Tensor) -> "Prompts":
        return Prompts(points_xy=self.points_xy[some], tokens=tuple(part[some] for part in self.tokens))


class PromptGrid:
    """Grids of point prompts as tokens. The weights are read when a size is first met and must not change later."""

    def __init__(self, proposer: Proposer, settings: GeneratorSettings) -> None:
        self._proposer = proposer
        self._unit_grids = build_all_layer_point_grids(
            settings.points_per_side, settings.crop_n_layers, settings.crop_n_points_downscale_factor
        )
        self._known = lru_cache(_MAX_GRIDS)(self._embed)  # asked by several threads

    def of_crop(self, size: tuple[int, int], layer: int) -> Prompts:
        """The prompts of a crop of `size` (height, width) in `layer`."""
        return self._known(size, layer)

    def _embed(self, size: tuple[int, int], layer: int) -> Prompts:
        height, width = size
        # Float64 up to the positional encoding, as SAM's predictor has it.
        points_xy = torch.from_numpy(self._unit_grids[layer] * np.array([[width, height]]))
        points_xy = points_xy.to(self._proposer.device)
        return Prompts(points_xy=points_xy, tokens=self._proposer.embed(points_xy, size))


class WordPrompts:
    """The words of each image as tokens; a word that several images have is made once."""

    def __init__(self, model: WordModel, words: Mapping[int, Sequence[str]]) -> None:
        self._device = model.device
        self._words = words
        self._known = lru_cache(_MAX_WORDS)(model.embed_word)  # asked by several threads

    def of_image(self, image_id: int) -> Prompts:
        """A prompt for each of the image's words, none for an image without."""
        tokens = [self._known(word) for word in self._words.get(image_id, ())]
        return Prompts(
            points_xy=torch.full((len(tokens), 2), torch.nan, dtype=torch.float64, device=self._device),
            tokens=tuple(torch.cat(parts) for parts in zip(*tokens, strict=True)),
        )
