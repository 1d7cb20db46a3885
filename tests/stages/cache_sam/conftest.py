from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

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
    direction = torch.nn.functional.normalize(features[0].mean(dim=(0, 2, 3)), dim=0)
    for network in sam.mask_decoder.output_hypernetworks_mlps:
        last = network.layers[-1]
        last.weight.sub_(torch.outer(direction, direction @ last.weight)).mul_(6)
        last.bias.sub_(direction * (direction @ last.bias))
