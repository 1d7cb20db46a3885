import pytest
import torch
from torch import nn

from semires.stages.train.models.lavt.swin_blocks import _shift_mask, embed_patches, merge_patches, swin_block
from semires.stages.train.models.lavt.visual import SwinTrunk


def make_trunk(window: int) -> SwinTrunk:
    torch.manual_seed(0)
    trunk = SwinTrunk(embed_dim=8, depths=(2, 1, 1, 1), heads=(2, 2, 2, 4), window=window).double()
    for name, parameter in trunk.named_parameters():
        if name.endswith(("relative_position_bias_table", "bias")):
            nn.init.normal_(parameter)
    return trunk


@pytest.mark.parametrize("window", [4, 7])
@pytest.mark.parametrize("size", [(8, 8), (14, 7), (5, 9), (2, 3)])
@pytest.mark.parametrize("block", [0, 1])
def test_swin_block__is_transformers(window: int, size: tuple[int, int], block: int):
    layer = make_trunk(window).layers[0].blocks[block]
    tokens = torch.randn(3, size[0] * size[1], 8, dtype=torch.float64, requires_grad=True)
    expected, _ = layer(tokens, size, always_partition=True)
    gradient = torch.randn_like(expected)
    inputs = (tokens, *layer.parameters())
    expected_gradients = torch.autograd.grad(expected, inputs, gradient)
    found = swin_block(layer, tokens, size)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(torch.autograd.grad(found, inputs, gradient), expected_gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-11)
    with torch.no_grad():  # another kernel
        torch.testing.assert_close(swin_block(layer, tokens, size), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (2, 1), (2, 3)])
def test_shift_mask__masks_what_transformers_masks(rows: int, columns: int):
    block = make_trunk(4).layers[0].blocks[1]
    theirs = block.get_attn_mask(4 * rows, 4 * columns, torch.float32, torch.device("cpu"))
    assert torch.equal(_shift_mask(rows, columns, 4, 2, like=torch.zeros(1))[:, 0] < 0, theirs < 0)


def test_embed_and_merge__are_transformers():
    trunk = make_trunk(4)
    images = torch.randn(2, 3, 21, 30, dtype=torch.float64)
    tokens, size = embed_patches(trunk.embeddings, images)
    expected, expected_size = trunk.embeddings(images)
    assert size == tuple(expected_size) == (6, 8)
    torch.testing.assert_close(tokens, expected, rtol=0, atol=1e-12)
    for size, merged_size in (((6, 8), (3, 4)), ((3, 16), (2, 8)), ((16, 3), (8, 2))):
        found, found_size = merge_patches(trunk.layers[0].downsample, tokens, size)
        assert found_size == merged_size
        torch.testing.assert_close(found, trunk.layers[0].downsample(tokens, size), rtol=0, atol=1e-12)
