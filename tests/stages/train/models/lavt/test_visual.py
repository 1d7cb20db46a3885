import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt.swin_blocks import swin_block
from semires.stages.train.models.lavt.visual import SwinTrunk

torch.set_num_threads(1)


def make_trunk(**changes: object) -> SwinTrunk:
    torch.manual_seed(0)
    settings: dict = {"embed_dim": 8, "depths": (1, 2, 2, 1), "heads": (1, 2, 2, 4), "window": 4, **changes}
    trunk = SwinTrunk(**settings)
    for name, parameter in trunk.named_parameters():
        # transformers starts them at zero, where a misplaced position would go unseen.
        if name.endswith("relative_position_bias_table"):
            nn.init.normal_(parameter)
    return trunk


def attend(block: nn.Module, windows: Tensor, mask: Tensor | None = None) -> Tensor:
    """Window attention with position bias, [B, 16, C] -> [B, 16, C], written out for a window of 4."""
    attention = block.attention
    heads = attention.num_attention_heads
    query, key, value = (
        layer(windows).unflatten(-1, (heads, -1)).transpose(1, 2)
        for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
    )
    scores = query @ key.transpose(-2, -1) * query.shape[-1] ** -0.5
    table = attention.relative_position_bias.relative_position_bias_table.view(7, 7, heads)
    at = [(row, column) for row in range(4) for column in range(4)]
    bias = torch.stack([torch.stack([table[a - c + 3, b - d + 3] for c, d in at]) for a, b in at])
    scores = scores + bias.permute(2, 0, 1)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return attention.o_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


def finish(block: nn.Module, tokens: Tensor, attended: Tensor) -> Tensor:
    tokens = tokens + attended
    return tokens + block.mlp.fc2(F.gelu(block.mlp.fc1(block.layernorm_after(tokens))))


def test_forward__sizes_rounded_up():
    trunk = make_trunk().eval()
    features = trunk(torch.randn(2, 3, 70, 45))
    assert [tuple(f.shape) for f in features] == [(2, 8, 18, 12), (2, 16, 9, 6), (2, 32, 5, 3), (2, 64, 3, 2)]
    assert trunk.channels == (8, 16, 32, 64)


@torch.no_grad()
def test_forward__map_smaller_than_window_is_zero_padded():
    trunk = make_trunk(depths=(1, 1, 1, 1)).eval()
    # 24 pixels: 6 x 6 positions in stage 1, 3 x 3 in stage 2, both under or off the window of 4.
    seen = {}

    def hook(stage: int, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        seen[stage] = (tokens, size)
        return tokens, tokens

    trunk(torch.randn(1, 3, 24, 24), hook)
    tokens = trunk.layers[0].downsample(seen[0][0], seen[0][1])
    block = trunk.layers[1].blocks[0]
    padded = F.pad(block.layernorm_before(tokens).view(1, 3, 3, 16), (0, 0, 0, 1, 0, 1))
    attended = attend(block, padded.flatten(1, 2)).view(1, 4, 4, 16)[:, :3, :3].flatten(1, 2)
    torch.testing.assert_close(seen[1][0], finish(block, tokens, attended), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward__shift_survives_map_of_one_window():
    trunk = make_trunk().eval()
    block = trunk.layers[1].blocks[1]
    trunk(torch.randn(1, 3, 16, 16))
    assert (block.window_size, block.shift_size) == (4, 2)
    # A 4 x 4 map: the cyclic shift by 2 puts the four quadrants into one window, and the mask keeps them apart.
    tokens = torch.randn(1, 16, 16)
    normed = block.layernorm_before(tokens).view(1, 4, 4, 16)
    quadrant = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]).flatten()
    mask = quadrant[:, None] == quadrant[None]
    attended = attend(block, normed.roll((-2, -2), (1, 2)).flatten(1, 2), mask)
    attended = attended.view(1, 4, 4, 16).roll((2, 2), (1, 2)).flatten(1, 2)
    found = swin_block(block, tokens, (4, 4))
    torch.testing.assert_close(found, finish(block, tokens, attended), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_forward__size_of_one_call_leaves_no_trace():
    trunk = make_trunk().eval()
    images = torch.randn(1, 3, 64, 64)
    before = trunk(images)
    trunk(torch.randn(1, 3, 20, 36))
    assert all(torch.equal(a, b) for a, b in zip(before, trunk(images), strict=True))


def test_forward__hook_replaces_output_and_carries_on():
    trunk = make_trunk().eval()
    images = torch.randn(1, 3, 32, 32)
    plain = trunk(images)
    sizes = []

    def hook(stage: int, tokens: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        sizes.append(size)
        return tokens if stage else tokens + torch.randn_like(tokens), torch.full_like(tokens, float(stage))

    hooked = trunk(images, hook)
    assert sizes == [(8, 8), (4, 4), (2, 2), (1, 1)]
    assert [f.unique().tolist() for f in hooked] == [[0.0], [1.0], [2.0], [3.0]]

    carried = trunk(images, lambda stage, tokens, _: (tokens if stage else tokens + 1 + tokens.square(), tokens))
    assert torch.equal(carried[0], plain[0])
    assert not torch.allclose(carried[1], plain[1])


def test_drop_path__drops_attention_and_mlp():
    trunk = make_trunk(depths=(1, 1, 1, 1), drop_path=0.5)
    block = trunk.layers[3].blocks[0]
    assert isinstance(trunk.layers[0].blocks[0].drop_path, nn.Identity)
    calls = []
    block.drop_path.register_forward_hook(lambda *_: calls.append(1))
    trunk(torch.randn(1, 3, 32, 32))
    assert len(calls) == 2

    tokens = torch.randn(64, 4, 64)
    # A quarter of the samples skips both branches.
    unchanged = (swin_block(block, tokens, (2, 2)) == tokens).all(-1).all(-1)
    assert 4 <= unchanged.sum() <= 32


def test_drop_path__copy_has_its_own_mode():
    trunk = make_trunk(drop_path=0.5)
    teacher = copy.deepcopy(trunk).eval()
    images = torch.randn(2, 3, 32, 32)
    assert trunk.training
    assert all(torch.equal(a, b) for a, b in zip(teacher(images), teacher(images), strict=True))


@pytest.mark.parametrize("changes", [{"depths": (1, 1)}, {"heads": (3, 2, 2, 4)}])
def test_init__bad_settings(changes):
    with pytest.raises(InputError):
        make_trunk(**changes)
