"""SAM 2, EdgeTAM and SAM 3's tracker beside transformers' own, prompt by prompt."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    EdgeTamVisionConfig,
    Sam2HieraDetConfig,
    Sam2Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    Sam3VisionConfig,
)
from transformers.models.edgetam.configuration_edgetam import EdgeTamMaskDecoderConfig, EdgeTamPromptEncoderConfig
from transformers.models.sam3.configuration_sam3 import Sam3ViTConfig
from transformers.models.sam3_tracker.configuration_sam3_tracker import (
    Sam3TrackerMaskDecoderConfig,
    Sam3TrackerPromptEncoderConfig,
)

from semires.stages.cache_sam.models import decoder, two_way
from semires.stages.cache_sam.models.sam2_proposer import Sam2Proposer

IMAGE = np.random.default_rng(0).integers(0, 256, size=(60, 90, 3), dtype=np.uint8)
POINTS_XY = torch.tensor([[3.0, 5.0], [88.5, 30.0], [45.0, 59.0], [20.0, 31.0], [70.0, 12.25]], dtype=torch.float64)
GRID = 6


class Pyramid(torch.nn.Module):
    """Stands for EdgeTAM's backbone, which is timm's: four maps of falling size, in transformers' output."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        steps = zip([3, *widths[:-1]], widths, [4, 2, 2, 2], strict=True)
        self.stages = torch.nn.ModuleList(torch.nn.Conv2d(before, after, by, by) for before, after, by in steps)

    def forward(self, pixels: torch.Tensor, **options: Any) -> SimpleNamespace:
        maps = []
        for stage in self.stages:
            pixels = stage(pixels).tanh()
            maps.append(pixels)
        return SimpleNamespace(last_hidden_state=maps, hidden_states=None)


def edgetam(config: EdgeTamConfig) -> EdgeTamModel:
    model = EdgeTamModel(config)
    model.vision_encoder.backbone = Pyramid(config.vision_config.backbone_channel_list[::-1])
    return model


def small_edgetam(randomized: Callable[..., Any]) -> Any:
    vision = EdgeTamVisionConfig(
        backbone_config=Sam2HieraDetConfig(hidden_size=8, embed_dim_per_stage=[8, 8, 8, 8], blocks_per_stage=[1] * 4),
        backbone_channel_list=[32, 16, 8, 8],
        backbone_feature_sizes=[[scale * GRID] * 2 for scale in (4, 2, 1)],
        fpn_hidden_size=32,
    )
    config = EdgeTamConfig(
        vision_config=vision,
        prompt_encoder_config=EdgeTamPromptEncoderConfig(hidden_size=32, image_size=16 * GRID),
        mask_decoder_config=EdgeTamMaskDecoderConfig(hidden_size=32, mlp_dim=64),
    )
    return randomized(1, edgetam, config)


def small_sam3(randomized: Callable[..., Any], scale_factors: list[float]) -> Any:
    vit = Sam3ViTConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=14 * GRID,
        window_size=3,
        global_attn_indexes=[1],
        pretrain_image_size=14 * 3,
    )
    config = Sam3TrackerConfig(
        vision_config=Sam3VisionConfig(
            backbone_config=vit,
            fpn_hidden_size=32,
            backbone_feature_sizes=[[scale * GRID] * 2 for scale in (4, 2, 1)],
            scale_factors=scale_factors,
        ),
        prompt_encoder_config=Sam3TrackerPromptEncoderConfig(hidden_size=32, image_size=14 * GRID),
        mask_decoder_config=Sam3TrackerMaskDecoderConfig(hidden_size=32, mlp_dim=64),
    )
    return randomized(2, Sam3TrackerModel, config)


@pytest.fixture(scope="module", params=["sam2", "sam2, one mask", "edgetam", "sam3", "sam3, four levels"])
def model(
    request: pytest.FixtureRequest, small_sam2: Callable[[int], Sam2Model], randomized: Callable[..., Any]
) -> Any:
    """Small models with random weights; SAM 3's has a level more than its decoder takes, as it is published."""
    makers: dict[str, Callable[[], Any]] = {
        "sam2": lambda: small_sam2(0),
        "sam2, one mask": lambda: small_sam2(2),
        "edgetam": lambda: small_edgetam(randomized),
        "sam3": lambda: small_sam3(randomized, [4.0, 2.0, 1.0]),
        "sam3, four levels": lambda: small_sam3(randomized, [4.0, 2.0, 1.0, 0.5]),
    }
    return makers[request.param]()


@pytest.mark.parametrize("bytes_at_once", [None, 1000], ids=["together", "some tokens at a time"])
@torch.inference_mode()
def test_proposer__as_transformers(model: Any, bytes_at_once: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if bytes_at_once is not None:
        for module in (decoder, two_way):
            monkeypatch.setattr(module, "CPU_BYTES_AT_ONCE", bytes_at_once)
    proposer = Sam2Proposer(model, "fp32")
    pixels = proposer.load([IMAGE])
    embedding, fine, finest = proposer.encode(pixels)
    levels = features_of(model, pixels)
    for found, expected in zip([finest, fine, embedding], levels, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)

    shared = proposer.share((embedding[0], fine[0], finest[0]))
    tokens = proposer.embed(POINTS_XY, IMAGE.shape[:2])
    decoded = proposer.decode(shared, *tokens)
    every = torch.cartesian_prod(torch.arange(5), torch.arange(3))
    logits = proposer.logits(shared, decoded, every, (proposer.low_side, proposer.low_side)).unflatten(0, (5, 3))

    points_xy = (POINTS_XY / torch.tensor([90, 60]) * proposer.side).float()[None, :, None]
    labels = torch.ones(points_xy.shape[:3], dtype=torch.int)
    expected = model(image_embeddings=levels, input_points=points_xy, input_labels=labels)
    torch.testing.assert_close(decoded.iou, expected.iou_scores[0], atol=1e-5, rtol=0)
    torch.testing.assert_close(logits, expected.pred_masks[0], atol=1e-4, rtol=1e-4)
    assert logits.std() > 0.1
    assert expected.iou_scores.std() > 0.01, "a test of something"

    some = torch.tensor([[4, 1], [0, 2]])
    asked = logits[some[:, 0], some[:, 1]]
    ious, refined = proposer.refine(shared, asked, *(part[some[:, 0]] for part in tokens))
    for row, prompt in enumerate(some[:, 0]):
        expected = model(
            image_embeddings=levels,
            input_points=points_xy[:, prompt, None],
            input_labels=labels[:, prompt, None],
            input_masks=asked[row, None, None].clamp(-32, 32),
            multimask_output=False,
        )
        torch.testing.assert_close(ious[row], expected.iou_scores[0, 0, 0], atol=1e-5, rtol=0)
        torch.testing.assert_close(refined[row], expected.pred_masks[0, 0, 0], atol=1e-4, rtol=1e-4)


def features_of(model: Any, pixels: torch.Tensor) -> list[torch.Tensor]:
    """What the decoder is given, from the finest, by transformers' own encoder.

    Of four levels it adds the embedding of no memory to the last, which no decoder sees; its model of SAM 3 for
    videos, and SAM 3's own, add it to the third.
    """
    levels = model.get_image_embeddings(pixels)
    if len(model.vision_encoder(pixels).fpn_hidden_states) > 3:
        levels[2] = levels[2] + model.no_memory_embedding.view(1, -1, 1, 1)
    return levels
