"""SAMs with random weights for timing, and settings with which about as many of their masks survive as of real ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of

MIN_MASKS = 60
"""Masks of an image that must survive for its time to mean anything."""

NUM_MASKS = 150
"""Masks of an image aimed at; with every prompt of SAM's default 3,072."""

# A sample suffices to set thresholds.
_POINTS_PER_SIDE = 16
# Of the masks of a photograph about half pass SAM's threshold of the predicted IoU; these are what is upsampled.
_SHARE_BY_IOU = 0.5
# Where thresholds may lie: both generators compute scores to 1e-5 or so, which must not decide.
_MEDIAN_IOU = 0.7


def random_sam(name: str, image: NDArray[np.uint8], device: torch.device, *, seed: int = 0) -> Sam:
    """The SAM `name` of segment-anything's registry with random weights, in eval mode, the same for the same seed.

    Its heads are moved so that on `image`, uint8 [H, W, 3], masks are neither empty nor full and differ from prompt
    to prompt, and the median of the predicted IoU is 0.7.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = sam_model_registry[name]()
    sam = sam.eval().to(device)
    features: list[torch.Tensor] = []
    hook = sam.mask_decoder.output_upscaling.register_forward_hook(lambda *call: features.append(call[-1]))
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    _predict(predictor, image)
    hook.remove()
    # Take the mean pixel out of what masks are read with: random masks are else nearly constant.
    direction = torch.nn.functional.normalize(features[0].mean(dim=(0, 2, 3)), dim=0)
    with torch.inference_mode():
        for network in sam.mask_decoder.output_hypernetworks_mlps:
            last = network.layers[-1]
            last.weight -= torch.outer(direction, direction @ last.weight)
            last.bias -= direction * (direction @ last.bias)
        predicted_iou, _ = _predict(predictor, image)
        sam.mask_decoder.iou_prediction_head.layers[-1].bias += _MEDIAN_IOU - predicted_iou.median()
    return sam


def settings_for(sam: Sam, images: Sequence[NDArray[np.uint8]], settings: GeneratorSettings) -> GeneratorSettings:
    """`settings` with thresholds at which about `NUM_MASKS` masks of each image survive, if the prompts give so many.

    Half of the masks pass the predicted IoU. The boxes of random masks overlap entirely, so NMS lets all pass.
    """
    predictor = SamPredictor(sam)
    predictor.set_image(images[0])
    _, spread = _predict(predictor, images[0])
    sample = replace(
        settings,
        points_per_side=min(settings.points_per_side, _POINTS_PER_SIDE),
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        stability_score_offset=0.1 * spread,
        box_nms_thresh=1.0,
        crop_nms_thresh=1.0,
        crop_n_layers=0,
    )
    generator = MaskGenerator(proposer_of(sam, "fp32"), sample)
    found = [generator.generate(0, image) for image in images]
    wanted = min(1.0, NUM_MASKS / (3 * settings.points_per_side**2))
    ious = np.concatenate([each.predicted_iou for each in found])
    iou_thresh = threshold_above(ious, max(wanted, _SHARE_BY_IOU))
    stability_thresh = 1.0
    for each in found:
        # NaN, the stability of an empty mask, passes no threshold; with none of ours it counts as 0.
        stability = np.nan_to_num(each.stability_score[each.predicted_iou > iou_thresh])
        share = min(1.0, wanted * each.num_masks / max(1, len(stability)))
        stability_thresh = min(stability_thresh, threshold_above(stability, share))
    return replace(
        sample,
        points_per_side=settings.points_per_side,
        pred_iou_thresh=iou_thresh,
        stability_score_thresh=stability_thresh,
        crop_n_layers=settings.crop_n_layers,
    )


def threshold_above(scores: NDArray[np.floating], share: float) -> float:
    """A threshold from 0 to 1 that `share` of the scores or up to a twentieth more of them are above; 0 for all.

    It lies in the middle of the widest gap there is in this range, for scores that are known to rounding.
    """
    count = round(share * len(scores))
    if count >= len(scores):
        return 0.0
    descending = np.sort(scores)[::-1].astype(np.float64)
    last = min(len(scores) - 1, count + len(scores) // 20)
    count = max(1, count)
    gaps = descending[count - 1 : last] - descending[count : last + 1]
    if len(gaps) == 0:
        return 0.0
    widest = count + int(gaps.argmax())
    return float(np.clip((descending[widest - 1] + descending[widest]) / 2, 0.0, 1.0))


def _predict(predictor: SamPredictor, image: NDArray[np.uint8]) -> tuple[torch.Tensor, float]:
    """Predicted IoU [P, 3] and the standard deviation of the low-resolution logits, of 64 prompts all over the image.

    `image` must be set already.
    """
    height, width = image.shape[:2]
    steps = (np.arange(8) + 0.5) / 8
    points_xy = np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 1, 2)
    points = torch.as_tensor(
        predictor.transform.apply_coords(points_xy, (height, width)), dtype=torch.float32, device=predictor.device
    )
    labels = torch.ones(points.shape[:2], dtype=torch.int, device=predictor.device)
    _, predicted_iou, logits = predictor.predict_torch(points, labels, multimask_output=True, return_logits=True)
    return predicted_iou, float(logits.std())
