"""SAMs with random weights for timing, and settings with which about as many of their masks survive as of real ones."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything import SamPredictor, sam_model_registry
from segment_anything.modeling import Sam
from torch import Tensor, nn

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.proposer import Proposer
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of

Pixels = NDArray[np.uint8]

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


def random_sam(name: str, image: Pixels, device: torch.device, *, seed: int = 0) -> Sam:
    """The SAM `name` of segment-anything's registry with random weights, in eval mode, the same for the same seed.

    Its heads are moved so that on `image`, uint8 [H, W, 3], masks are neither empty nor full and differ from prompt
    to prompt, and the median of the predicted IoU is 0.7.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        sam = sam_model_registry[name]()
    sam = sam.eval().to(device)
    decoder = sam.mask_decoder
    predictor = SamPredictor(sam)
    predictor.set_image(image)
    features = _last_output(
        decoder.output_upscaling,
        lambda: predictor.predict(np.array([[image.shape[1] / 2, image.shape[0] / 2]]), np.array([1])),
    )
    _take_out_mean(features, [network.layers[-1] for network in decoder.output_hypernetworks_mlps])
    predicted_iou, _ = _ask(proposer_of(sam, "fp32"), image)
    with torch.no_grad():
        decoder.iou_prediction_head.layers[-1].bias += _MEDIAN_IOU - predicted_iou.median()
    return sam


def random_sam2(image: Pixels, device: torch.device, *, seed: int = 0, config: Any = None) -> Any:
    """transformers' `Sam2Model` in the shape of SAM 2.1's hiera-tiny, or that of `config`, with random weights.

    They are drawn as torch draws them: transformers' own are so small that all prompts look alike. Heads are moved as
    those of `random_sam`.
    """
    from transformers import Sam2Config, Sam2Model

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Sam2Model(config or Sam2Config()).eval()
        for module in model.modules():
            if isinstance(module, (nn.Linear, nn.Conv2d, nn.ConvTranspose2d, nn.Embedding)):
                module.reset_parameters()
        for weight in (model.vision_encoder.backbone.pos_embed, model.vision_encoder.backbone.pos_embed_window):
            weight.normal_(std=0.1)
        positions = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
        model.to(device)
        decoder, side = model.mask_decoder, model.prompt_encoder.input_image_size
        pixels = proposer_of(model, "fp32").load([image])
        middle = torch.full((1, 1, 1, 2), side / 2, device=device)
        features = _last_output(decoder.activation, lambda: model(pixel_values=pixels, input_points=middle))
        _take_out_mean(features, [network.proj_out for network in decoder.output_hypernetworks_mlps])
        predicted_iou, _ = _ask(proposer_of(model, "fp32"), image)
        # Its predicted IoU goes through a sigmoid.
        decoder.iou_prediction_head.proj_out.bias += (
            math.log(_MEDIAN_IOU / (1 - _MEDIAN_IOU)) - predicted_iou.logit().median()
        )
    return model


def settings_for(sam: Any, images: Sequence[Pixels], settings: GeneratorSettings) -> GeneratorSettings:
    """`settings` with thresholds at which about `NUM_MASKS` masks of each image survive, if the prompts give so many.

    Half of the masks pass the predicted IoU. The boxes of random masks overlap entirely, so NMS lets all pass.
    """
    _, spread = _ask(proposer_of(sam, "fp32"), images[0])
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


def _ask(proposer: Proposer, image: Pixels) -> tuple[Tensor, float]:
    """Predicted IoU [P, 3] of 64 prompts all over an image, and the deviation of their low-resolution logits."""
    height, width = image.shape[:2]
    steps = (np.arange(8) + 0.5) / 8
    points_xy = np.stack(np.meshgrid(steps * width, steps * height), axis=-1).reshape(-1, 2)
    with torch.inference_mode():
        (embedding,) = zip(*proposer.encode(proposer.load([image])), strict=True)
        tokens = proposer.embed(torch.as_tensor(points_xy, device=proposer.device), (height, width))
        shared = proposer.share(embedding)
        decoded = proposer.decode(shared, *tokens)
        every = torch.cartesian_prod(*map(torch.arange, decoded.iou.shape))
        logits = proposer.logits(shared, decoded, every, (proposer.low_side, proposer.low_side))
    return decoded.iou, float(logits.std())


def _last_output(module: nn.Module, call: Callable[[], object]) -> Tensor:
    """What `module` returns last while `call` runs, without gradients."""
    outputs: list[Tensor] = []
    hook = module.register_forward_hook(lambda *called: outputs.append(called[-1]))
    with torch.no_grad():
        call()
    hook.remove()
    return outputs[-1]


def _take_out_mean(features_BCHW: Tensor, last: Sequence[nn.Linear]) -> None:
    """Take the mean pixel out of what masks are read with, by these layers: random masks are else nearly constant."""
    direction = torch.nn.functional.normalize(features_BCHW.mean(dim=(0, 2, 3)), dim=0)
    with torch.no_grad():
        for layer in last:
            layer.weight.sub_(torch.outer(direction, direction @ layer.weight))
            layer.bias.sub_(direction * (direction @ layer.bias))
