"""Candidate masks of one image: SAM's automatic mask generator behind our own interface."""

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.modeling import Sam

from semires.cache.candidates import Candidates
from semires.stages.data.errors import InputError


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """Settings of SAM's automatic mask generator, with its names and its defaults.

    `points_per_side`: prompts in each direction, evenly spaced. `points_per_batch`: prompts decoded at once; bounds
    memory, changes no result. `pred_iou_thresh`, `stability_score_thresh`: lowest score kept, 0 to 1.
    `stability_score_offset`: logits by which the mask threshold is moved to measure stability. `box_nms_thresh`: box
    IoU above which the lower-scored of two masks is dropped. `crop_n_layers`: how often the image is also searched in
    2 x 2, 4 x 4, ... crops, with `crop_nms_thresh`, `crop_overlap_ratio` and `crop_n_points_downscale_factor`.
    `min_mask_region_area`: pixels below which holes and islands are removed; above 0 needs OpenCV.
    """

    points_per_side: int = 32
    points_per_batch: int = 64
    pred_iou_thresh: float = 0.88
    stability_score_thresh: float = 0.95
    stability_score_offset: float = 1.0
    box_nms_thresh: float = 0.7
    crop_n_layers: int = 0
    crop_nms_thresh: float = 0.7
    crop_overlap_ratio: float = 512 / 1500
    crop_n_points_downscale_factor: int = 1
    min_mask_region_area: int = 0

    def __post_init__(self) -> None:
        for name in ("points_per_side", "points_per_batch", "crop_n_points_downscale_factor"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}: expected 1 or more, found {getattr(self, name)}")
        for name in ("crop_n_layers", "min_mask_region_area"):
            if getattr(self, name) < 0:
                raise InputError(f"{name}: expected 0 or more, found {getattr(self, name)}")
        for name in ("pred_iou_thresh", "stability_score_thresh", "box_nms_thresh", "crop_nms_thresh"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name}: expected a number from 0 to 1, found {getattr(self, name)}")

    def recorded(self) -> dict[str, int | float]:
        """What the store's manifest keeps: every setting that can change a candidate."""
        settings = asdict(self)
        del settings["points_per_batch"]
        return settings


class MaskGenerator:
    """`SamAutomaticMaskGenerator`, one image at a time, on the device of `sam`; gives packed `Candidates`.

    InputError where the settings need OpenCV and it is not installed.
    """

    def __init__(self, sam: Sam, settings: GeneratorSettings) -> None:
        if settings.min_mask_region_area > 0 and find_spec("cv2") is None:
            raise InputError(
                f"min_mask_region_area: expected OpenCV for {settings.min_mask_region_area}, found no module cv2; "
                "install opencv-python-headless or leave it at 0"
            )
        self._generator = _CropGenerator(sam, **asdict(settings))

    def generate(self, image_id: int, image: NDArray[np.uint8]) -> Candidates:
        """Candidates of one RGB image uint8 [H, W, 3], in SAM's order, at the image's own resolution."""
        height, width = image.shape[:2]
        with torch.inference_mode():
            records = self._generator.generate(image)
        masks = np.zeros((len(records), height, width), dtype=bool)
        for mask, record in zip(masks, records, strict=True):
            mask[:] = record["segmentation"]
        return Candidates.from_masks(
            image_id=image_id,
            masks=masks,
            predicted_iou=np.array([record["predicted_iou"] for record in records], dtype=np.float32),
            stability_score=np.array([record["stability_score"] for record in records], dtype=np.float32),
            points_xy=np.array([record["point_coords"][0] for record in records], dtype=np.float32).reshape(-1, 2),
        )


class _CropGenerator(SamAutomaticMaskGenerator):
    """SAM's generator, which fails where no crop holds a mask: it gives their boxes the shape [0] and reads [0, 4]."""

    def _process_crop(self, *args: Any) -> Any:
        data = super()._process_crop(*args)
        data["crop_boxes"] = data["crop_boxes"].reshape(-1, 4)
        return data
