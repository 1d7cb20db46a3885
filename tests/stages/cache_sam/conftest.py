from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.sam import LoadedSam, load_sam
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam


@pytest.fixture(scope="session")
def random_sam() -> Sam:
    """The tiny SAM with random weights, always the same; its masks are blobs that mean nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build_tiny_sam()


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory, random_sam: Sam) -> Path:
    """The weights of `random_sam`, as segment-anything's checkpoints are saved."""
    path = tmp_path_factory.mktemp("sam") / "tiny.pth"
    torch.save(random_sam.state_dict(), path)
    return path


@pytest.fixture
def loaded(random_checkpoint: Path) -> LoadedSam:
    return load_sam("tiny", random_checkpoint, torch.device("cpu"))


@pytest.fixture(scope="session")
def open_settings() -> GeneratorSettings:
    """Nine prompts, and no threshold that random masks would fall below."""
    return GeneratorSettings(
        points_per_side=3,
        pred_iou_thresh=0.0,
        stability_score_thresh=0.0,
        stability_score_offset=0.01,
        box_nms_thresh=1.0,
    )


@pytest.fixture(scope="session")
def small_sam() -> Callable[[int], Sam]:
    """Small SAMs of several shapes by seed, with random weights whose scores and masks differ between prompts."""
    return make_small_sam


@cache
def make_small_sam(seed: int) -> Sam:
    """The SAM of `seed`, the same at every call."""
    heads, channels, patch_size, grid, depth = [
        (2, 16, 16, 4, 2),
        (4, 32, 8, 8, 1),
        (1, 24, 16, 5, 3),
        (2, 32, 4, 8, 2),
    ][seed % 4]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sam = Sam(
            image_encoder=ImageEncoderViT(
                img_size=grid * patch_size,
                patch_size=patch_size,
                embed_dim=16,
                depth=2,
                num_heads=2,
                out_chans=channels,
                use_rel_pos=seed % 2 == 0,
                window_size=3,
                global_attn_indexes=(1,),
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=channels,
                image_embedding_size=(grid, grid),
                input_image_size=(grid * patch_size, grid * patch_size),
                mask_in_chans=4,
            ),
            mask_decoder=MaskDecoder(
                transformer=TwoWayTransformer(depth=depth, embedding_dim=channels, mlp_dim=32, num_heads=heads),
                transformer_dim=channels,
                iou_head_hidden_dim=16,
            ),
        )
        with torch.no_grad():
            for name, weight in sam.named_parameters():
                if "rel_pos" in name or name.endswith("bias") or "norm" in name:
                    weight.add_(torch.randn_like(weight), alpha=0.3)
            sam.mask_decoder.iou_prediction_head.layers[-1].weight.mul_(6)
            balance_masks(sam)
    return sam.eval()


def balance_masks(sam: Sam) -> None:
    """Take the mean pixel out of what masks are read with, so that random masks are neither empty nor full."""
    features: list[torch.Tensor] = []
    hook = sam.mask_decoder.output_upscaling.register_forward_hook(lambda *call: features.append(call[-1]))
    predictor = SamPredictor(sam)
    predictor.set_image(np.random.default_rng(0).integers(0, 256, size=(40, 40, 3), dtype=np.uint8))
    predictor.predict(np.array([[9.0, 20.0]]), np.array([1]))
    hook.remove()
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        take_out_mean(features[0], network.layers[-1])


@pytest.fixture(scope="session")
def small_sam2() -> Callable[[int], Any]:
    """Small SAM 2s of several shapes by seed, with random weights whose scores and masks differ between prompts."""
    return make_small_sam2


@pytest.fixture(scope="session")
def randomized() -> Callable[[int, Callable[[Any], Any], Any], Any]:
    """`randomized_sam2`."""
    return randomized_sam2


@cache
def make_small_sam2(seed: int) -> Any:
    """The SAM 2 of `seed`, the same at every call; what sam2's classes fix is as there: heads, layers, MLPs."""
    import transformers  # which takes seconds that most tests here need not wait

    grid, channels, blocks, windows, everywhere, dynamic = [
        (8, 32, [1, 1, 2, 1], [8, 4, 4, 4], [3], True),
        (4, 16, [1, 2, 1, 1], [4, 4, 7, 3], [2], True),
        (6, 48, [1, 1, 1, 2], [8, 4, 14, 7], [4], False),
    ][seed % 3]
    widths = [8, 16, 32, 64]
    hiera = transformers.Sam2HieraDetConfig(
        hidden_size=widths[0],
        blocks_per_stage=blocks,
        embed_dim_per_stage=widths,
        window_size_per_stage=windows,
        global_attention_blocks=everywhere,
        window_positional_embedding_background_size=[3, 3],
    )
    vision = transformers.Sam2VisionConfig(
        backbone_config=hiera,
        backbone_channel_list=widths[::-1],
        backbone_feature_sizes=[[scale * grid] * 2 for scale in (4, 2, 1)],
        fpn_hidden_size=channels,
    )
    prompts = transformers.Sam2PromptEncoderConfig(hidden_size=channels, image_size=16 * grid)
    decoder = transformers.Sam2MaskDecoderConfig(
        hidden_size=channels, dynamic_multimask_via_stability=dynamic, dynamic_multimask_stability_thresh=0.9
    )
    return randomized_sam2(
        seed,
        transformers.Sam2Model,
        transformers.Sam2Config(vision_config=vision, prompt_encoder_config=prompts, mask_decoder_config=decoder),
    )


def randomized_sam2(seed: int, kind: Callable[[Any], Any], config: Any) -> Any:
    """transformers' SAM 2, EdgeTAM or SAM 3 with random weights, with which scores and masks differ between prompts."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = kind(config).eval()
        for module in model.modules():
            if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d, torch.nn.ConvTranspose2d, torch.nn.Embedding)):
                module.reset_parameters()  # transformers' own are so small that all prompts look alike
        for name, weight in model.named_parameters():
            if name.endswith(("bias", "embed", "pos_embed_window", "memory_embedding")) or "norm" in name:
                weight.add_(torch.randn_like(weight), alpha=0.3)
            elif name.startswith("mask_decoder.transformer") and "q_proj" in name:
                weight.mul_(4)  # so that what is seen depends on who asks
        positions = model.shared_image_embedding.positional_embedding
        model.prompt_encoder.shared_embedding.positional_embedding.copy_(positions)
        model.mask_decoder.iou_prediction_head.proj_out.weight.mul_(12)
        features: list[torch.Tensor] = []
        hook = model.mask_decoder.activation.register_forward_hook(lambda *call: features.append(call[-1]))
        side = model.prompt_encoder.input_image_size
        point_xy = torch.tensor([[[[0.2 * side, 0.6 * side]]]])
        model(pixel_values=torch.randn(1, 3, side, side), input_points=point_xy, input_labels=torch.ones(1, 1, 1).int())
        hook.remove()
        for size, network in enumerate(model.mask_decoder.output_hypernetworks_mlps):
            take_out_mean(features[-1], network.proj_out, least=0.35 * size)
    return model


def take_out_mean(features_BCHW: torch.Tensor, last: torch.nn.Linear, least: float = 0.0) -> None:
    """Take the mean pixel out of what masks are read with, so that random masks are neither empty nor full.

    With `least` they are smaller: pixels so many standard deviations above the mean, about.
    """
    mean = features_BCHW.mean(dim=(0, 2, 3))
    direction = torch.nn.functional.normalize(mean, dim=0)
    last.weight.sub_(torch.outer(direction, direction @ last.weight)).mul_(6)
    last.bias.sub_(direction * (direction @ last.bias))
    spread = (features_BCHW - mean[:, None, None]).std() * last.weight.norm() * len(last.weight) ** -0.5
    last.bias.sub_(direction * (least * spread / mean.norm()))


@pytest.fixture(scope="session")
def assert_same_records() -> Callable[[Candidates, list[dict[str, Any]]], None]:
    """Candidates beside the records of a generator of SAM's kind: the same masks in the same order, scores within 1e-4,
    masks equal but for pixels whose logit is within rounding of the threshold."""

    def check(candidates: Candidates, records: list[dict[str, Any]]) -> None:
        assert candidates.num_masks == len(records)
        for name in ("predicted_iou", "stability_score"):
            expected = np.float32([record[name] for record in records])
            np.testing.assert_allclose(getattr(candidates, name), expected, atol=1e-4, rtol=0, equal_nan=True)
        points_xy = np.float32([record["point_coords"][0] for record in records]).reshape(-1, 2)
        assert np.array_equal(candidates.points_xy, points_xy)
        for mask, area, box, record in zip(
            candidates.masks(), candidates.area, candidates.boxes_xyxy, records, strict=True
        ):
            expected = record["segmentation"]
            assert np.count_nonzero(mask & expected) >= 0.999 * np.count_nonzero(mask | expected)
            if np.array_equal(mask, expected):
                assert area == record["area"]
                x, y, width, height = record["bbox"]
                # SAM's boxes end at the last pixel, ours behind it; both are zero for an empty mask.
                assert box.tolist() == ([x, y, x + width + 1, y + height + 1] if area else [0, 0, 0, 0])

    return check
