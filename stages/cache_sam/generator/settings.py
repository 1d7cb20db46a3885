"""Settings of the mask generator, and in which precision it computes."""

import math
from dataclasses import asdict, dataclass, replace

import torch

from semires.stages.data.errors import InputError

# Prompts that fill a CUDA chip; SAM's 64 do not. Memory that this does not fit is met with half as many.
POINTS_ON_CUDA = 256
MOST_PROMPTS = 10_000_000  # of an image: more is a slip of the hand, and has no end
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings:
    """Settings of SAM's automatic mask generator, with its names and its defaults.

    `points_per_side`: prompts in each direction, evenly spaced. `points_per_batch`: prompts decoded at once; bounds
    memory, changes no result. `pred_iou_thresh`, `stability_score_thresh`: lowest score kept, 0 to 1.
    `stability_score_offset`: logits by which the mask threshold is moved to measure stability. `box_nms_thresh`: box
    IoU above which the lower-scored of two masks is dropped. `crop_n_layers`: how often the image is also searched in
    2 x 2, 4 x 4, ... crops, with `crop_nms_thresh`, `crop_overlap_ratio` and `crop_n_points_downscale_factor`.
    `min_mask_region_area`: pixels below which holes and islands are removed; above 0 needs OpenCV. `use_m2m`: SAM 2's
    second prompt, the point and the first answer, for one mask more refined in place of each.
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
    use_m2m: bool = False

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
        if not 0 <= self.crop_overlap_ratio < 1:
            raise InputError(f"crop_overlap_ratio: expected 0 or more, below 1, found {self.crop_overlap_ratio}")
        if not 0 <= self.stability_score_offset < math.inf:
            raise InputError(
                f"stability_score_offset: expected a finite number from 0, found {self.stability_score_offset}"
            )
        self._check_prompts()

    def _check_prompts(self) -> None:
        """InputError where a layer of crops has no prompt, or all of them more than a run could ever decode."""
        sides, factor, num_prompts = self.points_per_side, self.crop_n_points_downscale_factor, 0
        for layer in range(self.crop_n_layers + 1):
            if sides == 0:
                raise InputError(
                    f"crop_n_layers: expected {layer - 1} or fewer with points_per_side {self.points_per_side} and "
                    f"crop_n_points_downscale_factor {factor}, which leave layer {layer} no prompt, found "
                    f"{self.crop_n_layers}; change one of the three"
                )
            num_prompts += 4**layer * sides**2
            if num_prompts > MOST_PROMPTS:
                raise InputError(
                    f"points_per_side {self.points_per_side}, crop_n_layers {self.crop_n_layers}: expected at most "
                    f"{MOST_PROMPTS:,} prompts an image, found more; give fewer"
                )
            sides //= factor

    def recorded(self) -> dict[str, int | float]:
        """What the store's manifest keeps: every setting that can change a candidate."""
        settings = asdict(self)
        del settings["points_per_batch"]
        # Stores from before there was this step know nothing of it, and are those of a generator without it.
        if not settings.pop("use_m2m"):
            return settings
        return settings | {"use_m2m": 1}

    def on(self, device: torch.device) -> "GeneratorSettings":
        """These settings with as many prompts at once as `device` works well with; the candidates are the same.

        On a CPU they stay as they are: there the generator goes by its cache.
        """
        return replace(self, points_per_batch=POINTS_ON_CUDA) if device.type == "cuda" else self


def precision_of(name: str | None, device: torch.device) -> str:
    """The precision to compute in, one of `PRECISIONS`: `name`, or for None bf16 on CUDA and fp32 elsewhere.

    InputError for any other name.
    """
    if name is None:
        return "bf16" if device.type == "cuda" else "fp32"
    if name not in PRECISIONS:
        raise InputError(f"--precision: expected one of {', '.join(PRECISIONS)}, found {name!r}")
    return name
