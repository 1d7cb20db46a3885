from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from segment_anything import SamAutomaticMaskGenerator
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from transformers import SamHQConfig, SamHQModel

from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam_hq_proposer import SamHqProposer, sam_of

# No size is a default, and no two that could be mistaken for each other are equal.
SMALL: dict[str, dict[str, Any]] = {
    "vision_config": {
        "hidden_size": 24,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "image_size": 64,
        "patch_size": 8,
        "output_channels": 16,
        "num_pos_feats": 8,
        "window_size": 3,
        "global_attn_indexes": [1, 3],
        "mlp_dim": 41,
    },
    "prompt_encoder_config": {"hidden_size": 16, "image_size": 64, "patch_size": 8, "mask_input_channels": 8},
    "mask_decoder_config": {
        "hidden_size": 16,
        "mlp_dim": 28,
        "num_attention_heads": 2,
        "iou_head_hidden_dim": 12,
        "vit_dim": 24,
    },
}
CHANGES: dict[str, dict[str, dict[str, Any]]] = {
    "small": {},
    "all layers global": {"vision_config": {"window_size": 0}},
    "no global layer": {"vision_config": {"global_attn_indexes": []}},
    "no positions": {"vision_config": {"use_abs_pos": False, "use_rel_pos": False, "qkv_bias": False}},
    "five masks": {"mask_decoder_config": {"num_multimask_outputs": 5, "num_hidden_layers": 3, "iou_head_depth": 4}},
    "epsilons": {"vision_config": {"layer_norm_eps": 0.3}, "mask_decoder_config": {"layer_norm_eps": 0.1}},
    "another activation": {"mask_decoder_config": {"hidden_act": "gelu", "attention_downsample_rate": 4}},
}


def random_model(changes: dict[str, dict[str, Any]] | None = None) -> SamHQModel:
    """A SamHQModel whose weights all matter (transformers starts some at zero) and whose masks differ by prompt."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = SamHQConfig(**{part: {**sizes, **(changes or {}).get(part, {})} for part, sizes in SMALL.items()})
        model = SamHQModel(config)
        for name, parameter in model.named_parameters():
            is_scale = "norm" in name and name.endswith("weight")
            torch.nn.init.normal_(parameter, mean=float(is_scale), std=1.0 if "positional" in name else 0.3)
    model.mask_decoder.transformer.register_forward_hook(keep_image_tokens, with_kwargs=True)
    return model.eval()


def keep_image_tokens(
    module: torch.nn.Module, args: Any, kwargs: dict[str, Tensor], output: tuple[Tensor, ...]
) -> None:
    """Mends transformers 5.23: of what its decoder's transformer returns, the image tokens go into no variable.

    What is upscaled instead is the image embedding as it was given, with rows for columns. So it is overwritten.
    """
    given, tokens = kwargs["image_embeddings"], output[1]
    given.copy_(tokens.transpose(2, 3).reshape(given.shape).transpose(2, 3))


def photograph(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, size=(height, width, 3), dtype=np.uint8)


def answer_of(model: SamHQModel, pixels: Tensor, points_xy: Tensor) -> tuple[Tensor, Tensor]:
    """transformers' masks [P, M, l, l] and predicted IoU [P, M] of points [P, 2] in the model's square."""
    with torch.no_grad():
        output = model(pixels, input_points=points_xy[None, :, None], multimask_output=True)
    return output.pred_masks[0], output.iou_scores[0]


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES.keys())
def test_proposer__same_as_transformers_prompt_by_prompt(changes: dict[str, dict[str, Any]]) -> None:
    model = random_model(changes)
    proposer = proposer_of(model, "fp32")
    assert isinstance(proposer, SamHqProposer)
    generator = torch.Generator().manual_seed(1)
    points_xy = 64 * torch.rand(6, 2, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        pixels = proposer.load([photograph(64, 64), photograph(40, 64)])
        embeddings = proposer.encode(pixels)
        for index in range(2):
            expected_masks, expected_iou = answer_of(model, pixels[index : index + 1], points_xy)
            shared = proposer.share(tuple(part[index] for part in embeddings))
            decoded = proposer.decode(shared, *proposer.embed(points_xy, (64, 64)))
            torch.testing.assert_close(decoded.iou, expected_iou, atol=1e-5, rtol=1e-5)
            num_masks = expected_iou.shape[1]
            every = torch.cartesian_prod(torch.arange(6), torch.arange(num_masks))
            logits = proposer.logits(shared, decoded, every, (32, 32))
            assert expected_masks.std(dim=0).mean() > 0.02
            torch.testing.assert_close(logits, expected_masks.flatten(0, 1), atol=1e-4, rtol=1e-4)
            some = torch.tensor([[3, 2], [0, 1], [3, 0]])
            for size in ((1, 3), (14, 5), (20, 32), (30, 31)):  # what lies beside a mask is seen by its convolutions
                logits = proposer.logits(shared, decoded, some, size)
                expected = expected_masks[some[:, 0], some[:, 1], : size[0], : size[1]]
                torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-4)


def test_proposer__pixels_are_normalized_as_the_model_says() -> None:
    model, image = random_model(), photograph(30, 64)
    plain = proposer_of(model, "fp32").load([image])
    expected = (torch.from_numpy(image).permute(2, 0, 1) / 255 - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / (
        torch.tensor([0.229, 0.224, 0.225])[:, None, None]
    )
    torch.testing.assert_close(plain[0, :, :30], expected)
    assert not plain[0, :, 30:].any()
    model.pixel_mean, model.pixel_std = [0.5] * 3, [0.25] * 3
    torch.testing.assert_close(
        proposer_of(model, "fp32").load([image])[0, :, :30], torch.from_numpy(image).permute(2, 0, 1) / 255 * 4 - 2
    )


def test_sam_of__shares_the_models_weights() -> None:
    model = random_model()
    sam = sam_of(model)
    weight = sam.image_encoder.blocks[2].attn.qkv.weight
    assert weight.data_ptr() == model.vision_encoder.layers[2].attn.qkv.weight.data_ptr()
    assert not sam.training


def test_proposer__half_precision_is_close() -> None:
    model, points_xy = random_model(), torch.tensor([[9.0, 50.0], [33.0, 20.0]], dtype=torch.float64)
    answers = []
    for precision in ("fp32", "bf16"):
        proposer = proposer_of(model, precision)
        with torch.inference_mode():
            shared = proposer.share(tuple(part[0] for part in proposer.encode(proposer.load([photograph(64, 64)]))))
            decoded = proposer.decode(shared, *proposer.embed(points_xy, (64, 64)))
            every = torch.cartesian_prod(torch.arange(2), torch.arange(3))
            answers.append((decoded.iou, proposer.logits(shared, decoded, every, (32, 32))))
    for exact, half in zip(*answers, strict=True):
        assert half.dtype == torch.float32
        assert (half - exact).abs().max() < 0.1 * exact.abs().max()


class TransformersPredictor:
    """What SAM's generator asks of its predictor, answered by a `SamHQModel`."""

    def __init__(self, model: SamHQModel) -> None:
        self.model = sam_of(model)
        self._hq = model
        self.device = model.device
        self.transform = ResizeLongestSide(model.config.vision_config.image_size)

    def set_image(self, image: np.ndarray) -> None:
        self._size = image.shape[:2]
        resized = torch.as_tensor(self.transform.apply_image(image)).permute(2, 0, 1)
        self._input_size = tuple(resized.shape[1:])
        self._pixels = self.model.preprocess(resized)[None]

    def reset_image(self) -> None:
        pass

    def predict_torch(self, points: Tensor, labels: Tensor, **options: Any) -> tuple[Tensor, Tensor, None]:
        assert options == {"multimask_output": True, "return_logits": True}
        masks, iou = answer_of(self._hq, self._pixels, points[:, 0])
        return self.model.postprocess_masks(masks, self._input_size, self._size), iou, None


@pytest.mark.parametrize("size", [(40, 70), (90, 41), (33, 33), (150, 200), (21, 60)])
@pytest.mark.parametrize("crop_n_layers", [0, 1])
def test_generate__same_as_sams_generator_with_transformers(
    size: tuple[int, int], crop_n_layers: int, assert_same_records: Callable[..., None]
) -> None:
    """The candidates of segment-anything's generator, asking transformers' model."""
    model, image = random_model(), photograph(*size)
    settings = GeneratorSettings(
        points_per_side=3,
        pred_iou_thresh=0.05,
        stability_score_thresh=0.3,
        stability_score_offset=0.05,
        box_nms_thresh=0.99,
        crop_n_layers=crop_n_layers,
        crop_nms_thresh=0.99,
        crop_n_points_downscale_factor=2,
    )
    reference = SamAutomaticMaskGenerator(sam_of(model), **settings.recorded())
    reference.predictor = TransformersPredictor(model)
    proposer = proposer_of(model, "fp32")
    # At 0 random masks cover the image; above it they differ in size.
    reference.predictor.model.mask_threshold = proposer.mask_threshold = 1.0
    records = reference.generate(image)
    candidates = MaskGenerator(proposer, settings).generate(7, image)
    assert len(records) > 3
    assert_same_records(candidates, records)
