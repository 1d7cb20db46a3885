"""What SAM is asked about an image: its crops, and in each crop a grid of points.

Every point is one prompt; it becomes T = 7 tokens of C channels (the decoder's IoU token, its four mask tokens, the
point, and the padding that stands where a box would be).
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import build_all_layer_point_grids, generate_crop_boxes
from segment_anything.utils.transforms import ResizeLongestSide

from semires.stages.cache_sam.generator.decoder import PromptDecoder
from semires.stages.cache_sam.generator.settings import GeneratorSettings

# Grids kept, one for each size of crop met lately: data sets repeat few sizes. A grid of 1,024 points is 15 MB for SAM.
_MAX_GRIDS = 16


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
    """The prompts of one crop.

    `points_xy` float64 [P, 2] in the crop's pixels, `tokens` float32 [P, T, C], and what the decoder makes of these
    before it looks at an image, `attended` float32 [P, T, C].
    """

    points_xy: torch.Tensor
    tokens: torch.Tensor
    attended: torch.Tensor

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, some: slice) -> "Prompts":
        return Prompts(points_xy=self.points_xy[some], tokens=self.tokens[some], attended=self.attended[some])


class PromptGrid:
    """Grids of point prompts as tokens. The weights are read when a size is first met and must not change later."""

    def __init__(self, sam: Sam, settings: GeneratorSettings, decoder: PromptDecoder) -> None:
        self._sam = sam
        self._decoder = decoder
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._unit_grids = build_all_layer_point_grids(
            settings.points_per_side, settings.crop_n_layers, settings.crop_n_points_downscale_factor
        )
        self._known = lru_cache(_MAX_GRIDS)(self._embed)  # asked by several threads

    def of_crop(self, size: tuple[int, int], layer: int) -> Prompts:
        """The prompts of a crop of `size` (height, width) in `layer`."""
        return self._known(size, layer)

    def _embed(self, size: tuple[int, int], layer: int) -> Prompts:
        height, width = size
        points_xy = self._unit_grids[layer] * np.array([[width, height]])
        # Float64 up to the positional encoding, as SAM's predictor has it.
        in_input_frame = torch.as_tensor(self._resize.apply_coords(points_xy, size), device=self._sam.device)
        labels = torch.ones((len(points_xy), 1), dtype=torch.int, device=self._sam.device)
        embedded, _ = self._sam.prompt_encoder(points=(in_input_frame[:, None, :], labels), boxes=None, masks=None)
        decoder = self._sam.mask_decoder
        output_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([output_tokens.expand(len(points_xy), -1, -1), embedded], dim=1)
        return Prompts(
            points_xy=torch.as_tensor(points_xy, device=self._sam.device),
            tokens=tokens,
            attended=self._decoder.attend_prompts(tokens),
        )
