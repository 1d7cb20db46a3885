import torch
from torch import Tensor

from semires.stages.train.models.decoder import Decoder, upsample

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
    assert upsample(maps, (2, 2)) is maps
