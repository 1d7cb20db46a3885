"""Small regions: holes and islands of a mask that are too small to be meant, SAM's optional last step."""

import numpy as np
import torch
from segment_anything.utils.amg import remove_small_regions

from semires.cache.bits import unpack_rows
from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.selection import boxes_of, suppress
from semires.stages.cache_sam.generator.settings import GeneratorSettings


def without_small_regions(candidates: Candidates, settings: GeneratorSettings) -> Candidates:
    """Holes and islands below `min_mask_region_area` pixels removed, then NMS again. Needs OpenCV."""
    masks = unpack_rows(candidates.bits, width=candidates.width)
    unchanged = np.ones(len(masks), dtype=np.float32)
    for index, mask in enumerate(masks):
        filled, had_holes = remove_small_regions(mask, settings.min_mask_region_area, mode="holes")
        masks[index], had_islands = remove_small_regions(filled, settings.min_mask_region_area, mode="islands")
        unchanged[index] = not (had_holes or had_islands)
    threshold = max(settings.box_nms_thresh, settings.crop_nms_thresh)
    # Masks that needed no repair are preferred.
    kept = suppress(boxes_of(torch.from_numpy(masks)), torch.from_numpy(unchanged), threshold).numpy()
    return Candidates.from_masks(
        image_id=candidates.image_id,
        masks=masks[kept],
        predicted_iou=candidates.predicted_iou[kept],
        stability_score=candidates.stability_score[kept],
        points_xy=candidates.points_xy[kept],
    )
