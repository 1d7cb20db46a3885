"""From low-resolution logits to candidate masks: upsampling, stability, boxes, bits, overlap.

The arithmetic is SamAutomaticMaskGenerator's, and none of it is reordered: the same logits give the same bits.
Boxes here are SAM's: right and bottom are the last pixel inside, and an empty mask has the box 0, 0, 0, 0.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from segment_anything.utils.amg import is_box_near_crop_edge
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops.boxes import batched_nms, box_iou

from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.prompts import Crop
from semires.stages.cache_sam.generator.settings import GeneratorSettings

# A word of eight pixels (bytes 0 or 1, the leftmost lowest) times this has them as bits in its top byte, the leftmost
# highest: pixel i goes to bit 8 i + 63 - 9 i = 63 - i, and no two terms of the product meet in one bit.
_GATHER_BITS = 0x8040201008040201 - 2**64

# Bytes of upsampled logits in work at once: on CPU what the cache holds, on CUDA enough to fill the chip.
_CPU_BYTES = 2**22
_CUDA_BYTES = 2**30


@dataclass(frozen=True, kw_only=True)
class Frame:
    """Where a crop's masks come from and go; sizes are (height, width)."""

    crop: Crop
    image_size: tuple[int, int]
    input_size: tuple[int, int]
    """The crop's in the model's input, without padding."""
    padded_size: int
    """Side of the model's square input in pixels."""
    low_side: int
    """Side of its square low-resolution logits."""
    stretched: bool = False
    """Whether the crop fills the input, out of shape: its logits then go to the crop's size in one step."""

    @property
    def low_size(self) -> tuple[int, int]:
        """Rows and columns of low-resolution logits that can be seen in a mask: others are only padding."""
        if self.stretched or self.padded_size % self.low_side != 0:
            return self.low_side, self.low_side
        factor = self.padded_size // self.low_side
        rows, columns = (min(self.low_side, -(-side // factor) + 1) for side in self.input_size)
        return rows, columns


@dataclass(frozen=True, kw_only=True, eq=False)
class Selected:
    """K masks that passed all thresholds: `kept` int64 [K] among those asked about, `masks` bool [K, h, w] of the
    crop, `stability` float32 [K], `area` int32 [K], `boxes_xyxy` int64 [K, 4] in the crop's pixels.
    """

    kept: Tensor
    masks: Tensor
    stability: Tensor
    area: Tensor
    boxes_xyxy: Tensor


def masks_at_once(frame: Frame, device: torch.device) -> int:
    """How many masks to upsample at once; bounds memory at any image size."""
    height, width = frame.crop.size
    num_pixels = height * width + (0 if frame.stretched else frame.padded_size**2)
    return max(1, (_CUDA_BYTES if device.type == "cuda" else _CPU_BYTES) // (4 * num_pixels))


def upsample(logits_KHW: Tensor, frame: Frame) -> Tensor:
    """Low-resolution logits, float32 [K, l, l], to those of the crop's pixels, [K, h, w]: Sam.postprocess_masks.

    Two bilinear steps, to the SAM's input and, without its padding, to the crop. Of the logits only `frame.low_size`
    is read, and need be there; a step between equal sizes is none. Where the crop was stretched (SAM 2), one step.
    """
    rows, columns = frame.low_size
    logits = logits_KHW[None, :, :rows, :columns]
    if frame.stretched:
        return F.interpolate(logits, frame.crop.size, mode="bilinear", align_corners=False)[0]
    size = (frame.padded_size * rows // frame.low_side, frame.padded_size * columns // frame.low_side)
    height, width = frame.input_size
    logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[..., :height, :width]
    if frame.crop.size != frame.input_size:
        logits = F.interpolate(logits, frame.crop.size, mode="bilinear", align_corners=False)
    return logits[0]


def select(logits_KHW: Tensor, frame: Frame, settings: GeneratorSettings, mask_threshold: float) -> Selected:
    """Stability, masks and boxes of upsampled logits, float32 [K, h, w], and which pass; one read-back of a count."""
    offset = settings.stability_score_offset
    # 0 / 0 gives NaN, as with SAM: it passes no threshold but 0, which is not compared with.
    stability = _count(logits_KHW > mask_threshold + offset) / _count(logits_KHW > mask_threshold - offset)
    masks = logits_KHW > mask_threshold
    area, boxes_xyxy = _count(masks), boxes_of(masks)
    passes = torch.ones_like(stability, dtype=torch.bool)
    if settings.stability_score_thresh > 0:
        passes &= stability >= settings.stability_score_thresh
    height, width = frame.image_size
    whole = [0, 0, width, height]
    if frame.crop.box_xyxy != whole:
        passes &= ~is_box_near_crop_edge(boxes_xyxy, frame.crop.box_xyxy, whole)
    kept = passes.nonzero()[:, 0]
    if len(kept) == len(masks):
        return Selected(kept=kept, masks=masks, stability=stability, area=area, boxes_xyxy=boxes_xyxy)
    return Selected(
        kept=kept, masks=masks[kept], stability=stability[kept], area=area[kept], boxes_xyxy=boxes_xyxy[kept]
    )


def boxes_of(masks_KHW: Tensor) -> Tensor:
    """Boxes of bool [K, h, w], int64 [K, 4]: segment_anything's batched_mask_to_box, several times faster on CPU."""
    # The largest byte of a row is whether any is set; on CPU torch's any() takes a hundred times as long.
    pixels = masks_KHW.contiguous().view(torch.uint8)
    sides = []
    for occupied in (pixels.amax(dim=1), pixels.amax(dim=2)):
        length = occupied.shape[1]
        # argmax gives the first of the largest: 0 for an empty mask, from either end.
        sides.append((occupied.argmax(dim=1), length - 1 - occupied.flip(1).argmax(dim=1), occupied.amax(dim=1)))
    (left, right, some), (top, bottom, _) = sides
    return torch.stack([left, top, right, bottom], dim=1) * some[:, None]


def pack(masks_KHW: Tensor, frame: Frame) -> Tensor:
    """Masks of a crop, bool [K, h, w], as packed rows of the image, uint8 [K, H, ceil(W / 8)], on their device.

    The layout of semires.cache.bits.pack_rows. One 64-bit product makes a byte of eight pixels.
    """
    height, width = frame.image_size
    crop, padded_width = frame.crop, -(-width // 8) * 8
    if crop.size == (height, padded_width):
        pixels = masks_KHW.contiguous()
    else:
        pixels = masks_KHW.new_zeros((len(masks_KHW), height, padded_width))
        pixels[:, crop.y0 : crop.y1, crop.x0 : crop.x1] = masks_KHW
    words = pixels.flatten().view(torch.int64) * _GATHER_BITS
    return words.view(torch.uint8).view(len(pixels), height, padded_width // 8, 8)[..., 7].contiguous()


def suppress(boxes_xyxy: Tensor, scores: Tensor, threshold: float) -> Tensor:
    """Indices that survive box NMS at IoU `threshold`, by falling score; torchvision's, called as SAM calls it."""
    categories = torch.zeros(len(boxes_xyxy), device=boxes_xyxy.device)
    kept: Tensor = batched_nms(boxes_xyxy.float(), scores, categories, iou_threshold=threshold)
    return kept


def joined(first: Candidates, more: Candidates, threshold: float) -> Candidates:
    """All of `first`, then those of `more`, of the same image, whose box has no IoU above `threshold` with these."""
    if first.num_masks and more.num_masks:
        ious = box_iou(*(torch.from_numpy(each.boxes_xyxy).float() for each in (more, first)))
        is_new = (ious.amax(dim=1) <= threshold).numpy()
    else:
        is_new = np.ones(more.num_masks, dtype=np.bool_)
    names = ("bits", "area", "boxes_xyxy", "predicted_iou", "stability_score", "points_xy")
    columns: dict[str, Any] = {
        name: np.concatenate([getattr(first, name), getattr(more, name)[is_new]]) for name in names
    }
    return replace(first, **columns)


def _count(masks_KHW: Tensor) -> Tensor:
    """Set pixels of each mask, bool [K, h, w]: int32 [K]. Eight bytes of 0 or 1 are added as one word, each of which
    counts to 255 before it runs into the next; torch would first write four bytes a pixel."""
    count, height, width = masks_KHW.shape
    if width % 8:
        return masks_KHW.sum(-1, dtype=torch.int32).sum(-1, dtype=torch.int32)
    words = masks_KHW.flatten().view(torch.int64).view(count, height, width // 8)
    sums = torch.stack([rows.sum(1) for rows in words.split(255, dim=1)], dim=1)
    return sums.view(torch.uint8).flatten(1).sum(-1, dtype=torch.int32)
