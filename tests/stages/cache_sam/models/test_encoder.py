from collections.abc import Callable

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam
from segment_anything.modeling.image_encoder import Attention
from torch import Tensor

from semires.stages.cache_sam.models import encoder as encoder_module
from semires.stages.cache_sam.models.encoder import (
    ImageEncoder,
    attention_augmented,
    attention_in_rows,
    attention_masked,
    bias_tables,
)


def make_attention(height: int, width: int, *, use_rel_pos: bool) -> Attention:
    attention = Attention(24, num_heads=3, use_rel_pos=use_rel_pos, input_size=(height, width))
    if use_rel_pos:
        torch.nn.init.normal_(attention.rel_pos_h)
        torch.nn.init.normal_(attention.rel_pos_w)
    return attention


@pytest.mark.parametrize("use_rel_pos", [True, False])
@pytest.mark.parametrize("compute", [attention_in_rows, attention_masked, attention_augmented])
def test_attention__same_as_sams(compute: Callable[..., Tensor], use_rel_pos: bool) -> None:
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        attention = make_attention(6, 5, use_rel_pos=use_rel_pos)
        tokens = torch.randn(2, 6, 5, 24)
        tables = bias_tables(attention, 6, 5, torch.float32)
        torch.testing.assert_close(compute(attention, tables, tokens), attention(tokens), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("num_bytes", [1, 4 * 5 * 30 * 4, 2**20], ids=["one row", "four rows and two", "all rows"])
def test_attention_in_rows__any_block_size(num_bytes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder_module, "_BYTES_OF_SCORES", num_bytes)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        attention, tokens = make_attention(6, 5, use_rel_pos=True), torch.randn(1, 6, 5, 24)
        attended = attention_in_rows(attention, bias_tables(attention, 6, 5, torch.float32), tokens)
        torch.testing.assert_close(attended, attention(tokens), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("many", [1, 10**6], ids=["in rows", "masked"])
def test_encode__same_as_sams_predictor(random_sam: Sam, many: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images of several sizes in one batch, each like SAM's own of it alone."""
    monkeypatch.setattr(encoder_module, "_MANY_TOKENS", many)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, size=(*size, 3), dtype=np.uint8) for size in ((96, 128), (200, 150), (31, 7))]
    encoder = ImageEncoder(random_sam, torch.float32)
    with torch.inference_mode():
        embeddings = encoder.encode(encoder.load(images))
        predictor = SamPredictor(random_sam)
        for image, embedding in zip(images, embeddings, strict=True):
            predictor.set_image(image)
            torch.testing.assert_close(embedding, predictor.features[0], atol=1e-5, rtol=1e-5)


def test_encode__bf16_is_close(random_sam: Sam) -> None:
    image = np.random.default_rng(0).integers(0, 256, size=(20, 30, 3), dtype=np.uint8)
    exact, half = (ImageEncoder(random_sam, dtype) for dtype in (torch.float32, torch.bfloat16))
    with torch.inference_mode():
        pixels = exact.load([image])
        one, other = exact.encode(pixels), half.encode(pixels).float()
    assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()
