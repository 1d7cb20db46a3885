from collections.abc import Callable

import pytest
import torch
from segment_anything.modeling import Sam

from semires.stages.cache_sam.models import decoder as decoder_module
from semires.stages.cache_sam.models import two_way
from semires.stages.cache_sam.models.decoder import PromptDecoder
from semires.stages.cache_sam.models.tiny_sam import build_tiny_sam


def sams_answer(sam: Sam, embedding: torch.Tensor, points_xy: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [B, 3, l, l] and predicted IoU [B, 3] of segment-anything's own decoder."""
    labels = torch.ones(points_xy.shape[:2], dtype=torch.int)
    sparse, dense = sam.prompt_encoder((points_xy, labels), None, None)
    return sam.mask_decoder(
        image_embeddings=embedding[None],
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )


def decoder_of(sam: Sam, dtype: torch.dtype = torch.float32) -> PromptDecoder:
    return PromptDecoder(
        sam.mask_decoder,
        dtype,
        position_CHW=sam.prompt_encoder.get_dense_pe()[0],
        no_mask=sam.prompt_encoder.no_mask_embed.weight[0],
    )


def tokens_of(sam: Sam, points_xy: torch.Tensor) -> torch.Tensor:
    labels = torch.ones(points_xy.shape[:2], dtype=torch.int)
    sparse, _ = sam.prompt_encoder((points_xy, labels), None, None)
    output_tokens = torch.cat([sam.mask_decoder.iou_token.weight, sam.mask_decoder.mask_tokens.weight])
    return torch.cat([output_tokens.expand(len(points_xy), -1, -1), sparse], dim=1)


@pytest.mark.parametrize("prompts_at_once", [None, 2.0, 0.3], ids=["together", "some prompts", "some tokens"])
@pytest.mark.parametrize("seed", range(4))
def test_decode__same_as_sams(
    small_sam: Callable[[int], Sam], seed: int, prompts_at_once: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also as image tokens are worked on where all prompts', or one's, do not fit a core's cache."""
    sam = small_sam(seed)
    if prompts_at_once is not None:
        bytes_at_once = int(prompts_at_once * decoder_of(sam).bytes_a_prompt)
        for module in (decoder_module, two_way):
            monkeypatch.setattr(module, "CPU_BYTES_AT_ONCE", bytes_at_once)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(seed)
        grid, channels = sam.prompt_encoder.image_embedding_size[0], sam.prompt_encoder.embed_dim
        embedding = torch.randn(channels, grid, grid)
        points_xy = sam.image_encoder.img_size * torch.rand(5, 1, 2)
        expected_logits, expected_iou = sams_answer(sam, embedding, points_xy)
        decoder = decoder_of(sam)
        tokens = tokens_of(sam, points_xy)
        shared = decoder.share(embedding)
        decoded = decoder.decode(shared, tokens, decoder.attend_prompts(tokens))
        torch.testing.assert_close(decoded.iou, expected_iou, atol=1e-5, rtol=1e-5)
        side = decoder.low_side
        logits = decoder.logits(shared, decoded, torch.cartesian_prod(torch.arange(5), torch.arange(3)), (side, side))
        torch.testing.assert_close(logits, expected_logits.flatten(0, 1), atol=1e-4, rtol=1e-5)
        some = torch.tensor([[3, 2], [0, 1], [3, 0]])
        logits = decoder.logits(shared, decoded, some, (side - 5, 1))
        expected = expected_logits[some[:, 0], some[:, 1], : side - 4, :4]
        torch.testing.assert_close(logits, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_decode__does_not_wait_for_cuda() -> None:
    sam = build_tiny_sam().cuda()
    with torch.inference_mode():
        embedding = torch.randn(sam.prompt_encoder.embed_dim, *sam.prompt_encoder.image_embedding_size, device="cuda")
        tokens = torch.randn(6, 7, sam.prompt_encoder.embed_dim, device="cuda")
        decoder = decoder_of(sam, torch.bfloat16)
        torch.cuda.set_sync_debug_mode("error")
        try:
            shared = decoder.share(embedding)
            decoded = decoder.decode(shared, tokens, decoder.attend_prompts(tokens))
            logits = decoder.logits(shared, decoded, torch.tensor([[3, 2], [0, 1], [3, 0]]), (49, 64))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert logits.shape == (3, 52, 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_decode__half_precision_is_close(small_sam: Callable[[int], Sam], dtype: torch.dtype) -> None:
    sam = small_sam(0)
    with torch.random.fork_rng(), torch.inference_mode():
        torch.manual_seed(0)
        grid, channels = sam.prompt_encoder.image_embedding_size[0], sam.prompt_encoder.embed_dim
        embedding, points_xy = torch.randn(channels, grid, grid), sam.image_encoder.img_size * torch.rand(3, 1, 2)
        expected_logits, expected_iou = sams_answer(sam, embedding, points_xy)
        decoder = decoder_of(sam, dtype)
        tokens = tokens_of(sam, points_xy)
        shared = decoder.share(embedding)
        decoded = decoder.decode(shared, tokens, decoder.attend_prompts(tokens))
        side = decoder.low_side
        logits = decoder.logits(shared, decoded, torch.cartesian_prod(torch.arange(3), torch.arange(3)), (side, side))
        assert decoded.image_tokens.dtype == dtype
        assert decoded.iou.dtype == logits.dtype == torch.float32
        assert (decoded.iou - expected_iou).abs().max() < 0.05 * expected_iou.abs().max()
        assert (logits - expected_logits.flatten(0, 1)).abs().max() < 0.05 * expected_logits.abs().max()
