import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from semires.stages.train.models.lavt.decoder import Decoder, convolve_upsampled, upsample

torch.set_num_threads(1)


def make_features(batch: int = 2) -> list[Tensor]:
    torch.manual_seed(0)
    # Odd sides, as of a 120-pixel image: a level does not double the one below it.
    return [torch.randn(batch, 4 * 2**stage, side, side) for stage, side in enumerate((30, 15, 8, 4))]


def test_forward__size_of_finest_stage():
    decoder = Decoder((4, 8, 16, 32), width=6)
    logits = decoder(make_features())
    assert logits.shape == (2, 2, 30, 30)
    assert logits.dtype == torch.float32
    shapes = [tuple(level[0].weight.shape) for level in decoder.levels]
    assert shapes == [(6, 48, 3, 3), (6, 14, 3, 3), (6, 10, 3, 3)]


def test_forward__every_stage_and_weight_counts():
    decoder = Decoder((4, 8, 16, 32), width=6)
    features = [f.requires_grad_() for f in make_features()]
    decoder(features).square().mean().backward()
    assert all(f.grad.abs().sum() > 0 for f in features)
    assert all(p.grad is not None for p in decoder.parameters())


def test_forward__evaluation_is_independent_of_batch():
    decoder = Decoder((4, 8, 16, 32), width=6)
    features = make_features()
    decoder([f[:1] for f in features])  # batch size 1 trains
    decoder.eval()
    alone = decoder([f[:1] for f in features])
    torch.testing.assert_close(decoder(features)[:1], alone)


def test_upsample__corners_aligned():
    maps = torch.tensor([[[[0.0, 1.0], [2.0, 3.0]]]])
    expected = torch.tensor([[[[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]]]])
    torch.testing.assert_close(upsample(maps, (3, 3)), expected)
    assert torch.equal(upsample(maps, (2, 2)), maps)


@pytest.mark.parametrize(("size", "target"), [((3, 2), (6, 4)), ((2, 3), (3, 5)), ((4, 4), (4, 4)), ((1, 1), (2, 2))])
def test_convolve_upsampled__is_convolution_of_upsampled(size: tuple[int, int], target: tuple[int, int]):
    torch.manual_seed(0)
    maps, weight = torch.randn(2, 5, *size, dtype=torch.float64), torch.randn(3, 5, 3, 3, dtype=torch.float64)
    arguments = (maps.requires_grad_(), weight.requires_grad_())
    found = convolve_upsampled(maps, weight, target)
    expected = F.conv2d(upsample(maps, target), weight, padding=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    gradient = torch.randn_like(found)
    for ours, theirs in zip(
        torch.autograd.grad(found, arguments, gradient), torch.autograd.grad(expected, arguments, gradient), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
