import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.fusion import LanguageGate, PixelWordAttention, PixelWordFusion, StageFusion

torch.set_num_threads(1)

CHANNELS, TEXT, POSITIONS, WORDS = 8, 6, 9, 5


@pytest.fixture
def inputs() -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    return torch.randn(2, POSITIONS, CHANNELS), torch.randn(2, WORDS, TEXT), mask


def normalise(features_NC: Tensor) -> Tensor:
    mean, variance = features_NC.mean(0), features_NC.var(0, unbiased=False)
    return (features_NC - mean) / (variance + 1e-5).sqrt()


def reference(attention: PixelWordAttention, pixels: Tensor, words: Tensor) -> Tensor:
    """The attention of one sample over its real words, [N, C] and [T, D] -> [N, C], head by head."""
    query = normalise(attention.query(pixels))
    key, value = attention.key(words), attention.value(words)
    size = CHANNELS // attention.heads
    heads = []
    for start in range(0, CHANNELS, size):
        part = slice(start, start + size)
        weights = (query[:, part] @ key[:, part].T / CHANNELS**0.5).softmax(-1)
        heads.append(weights @ value[:, part])
    return normalise(attention.output(torch.cat(heads, 1)))


@pytest.mark.parametrize("heads", [1, 2])
def test_attention__equals_reference_without_padding(inputs, heads):
    pixels, words, mask = inputs
    attention = PixelWordAttention(CHANNELS, TEXT, heads)
    found = attention(pixels, words, mask)
    for sample, num_words in enumerate((3, 5)):
        expected = reference(attention, pixels[sample], words[sample, :num_words])
        torch.testing.assert_close(found[sample], expected, rtol=1e-4, atol=1e-4)


def test_attention__bfloat16_does_not_magnify_its_rounding() -> None:
    # Positions that gather nearly the same, as before training: the norms divide by what little they differ.
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    attention = PixelWordAttention(32, 48)
    pixels = torch.randn(2, 64, 32, generator=generator)
    words = 3.0 + 0.1 * torch.randn(2, 6, 48, generator=generator)
    mask = torch.ones(2, 6)
    expected = attention(pixels, words, mask)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention(pixels, words, mask)
    assert found.dtype == torch.float32
    cosine = F.cosine_similarity(found.flatten(), expected.flatten(), dim=0)
    assert cosine > 0.999


def test_attention__no_word_at_all_is_finite(inputs):
    pixels, words, mask = inputs
    found = PixelWordAttention(CHANNELS, TEXT)(pixels, words, torch.zeros_like(mask))
    assert found.isfinite().all()


def test_attention__heads_that_do_not_divide():
    with pytest.raises(InputError, match="fusion_heads"):
        PixelWordAttention(CHANNELS, TEXT, 3)


def test_fusion__padded_words_and_other_samples_have_no_influence(inputs):
    pixels, words, mask = inputs
    fusion = PixelWordFusion(CHANNELS, TEXT)
    fused = fusion(pixels, words, mask)
    noisy = torch.where(mask[..., None] == 1, words, 100.0)
    torch.testing.assert_close(fusion(pixels, noisy, mask.bool()), fused)
    torch.testing.assert_close(fusion(pixels[:1], words[:1], mask[:1]), fused[:1])


def test_fusion__is_product_of_projections(inputs):
    pixels, words, mask = inputs
    fusion = PixelWordFusion(CHANNELS, TEXT, dropout=0.5).eval()
    product = F.gelu(fusion.project_visual[0](pixels)) * fusion.attention(pixels, words, mask)
    expected = F.gelu(fusion.project_fused[0](product))
    torch.testing.assert_close(fusion(pixels, words, mask), expected)
    assert not torch.allclose(fusion.train()(pixels, words, mask), expected)


def test_gate__has_no_bias_and_starts_nearly_closed():
    gate = LanguageGate(CHANNELS)
    assert [name for name, _ in gate.named_parameters()] == ["gate.0.weight", "gate.2.weight"]
    assert torch.equal(gate(torch.zeros(1, 2, CHANNELS)), torch.zeros(1, 2, CHANNELS))
    assert gate(torch.randn(2, POSITIONS, CHANNELS)).abs().max() < 0.1


def test_stage__carries_gated_and_outputs_normed(inputs):
    pixels, words, mask = inputs
    stage = StageFusion(CHANNELS, TEXT)
    torch.nn.init.normal_(stage.gate.gate[2].weight)
    torch.nn.init.normal_(stage.norm.weight)
    carried, output = stage(pixels, words, mask)
    fused = stage.fusion(pixels, words, mask)
    torch.testing.assert_close(carried, pixels + stage.gate(fused) * fused)
    torch.testing.assert_close(output, F.layer_norm(fused, (CHANNELS,), stage.norm.weight, stage.norm.bias))


def test_stage__ungated_carries_pixels(inputs):
    pixels, words, mask = inputs
    carried, output = StageFusion(CHANNELS, TEXT, gated=False)(pixels, words, mask)
    assert torch.equal(carried, pixels)
    assert output.shape == pixels.shape
