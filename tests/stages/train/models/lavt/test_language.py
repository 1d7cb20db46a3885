import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.language import TextEncoder

torch.set_num_threads(1)


def make_encoder() -> TextEncoder:
    torch.manual_seed(0)
    return TextEncoder(vocab_size=50, hidden=16, layers=3, heads=2, intermediate=32, positions=12).eval()


def test_forward__padding_has_no_influence():
    encoder = make_encoder()
    ids = torch.tensor([[2, 7, 8, 3, 0, 0], [2, 9, 3, 0, 0, 0]])
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0]])
    words = encoder(ids, mask)
    assert words.shape == (2, 6, 16)
    assert words.dtype == torch.float32
    noisy = torch.where(mask == 1, ids, 33)
    torch.testing.assert_close(encoder(noisy, mask)[mask == 1], words[mask == 1])
    torch.testing.assert_close(encoder(ids, mask.bool()), words)
    torch.testing.assert_close(encoder(ids[1:, :3], mask[1:, :3]), words[1:, :3])


def test_trained_parameters__first_layers():
    encoder = make_encoder()
    layers = encoder.bert.encoder.layer
    found = {id(p) for p in encoder.trained_parameters(num_layers=2, embeddings=False)}
    assert found == {id(p) for layer in (layers[0], layers[1]) for p in layer.parameters()}
    whole = encoder.trained_parameters(num_layers=3, embeddings=True)
    assert {id(p) for p in whole} == {id(p) for p in encoder.parameters()}
    assert len(whole) == len(list(encoder.parameters()))


def test_init__heads_that_do_not_divide():
    with pytest.raises(InputError, match="text_heads"):
        TextEncoder(vocab_size=50, hidden=16, layers=1, heads=3, intermediate=32)
