import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.swin_files import read_swin
from semires.stages.train.models.lavt.visual import SwinTrunk


@pytest.fixture
def swin_file(swin_tensors, tmp_path):
    """Write a Swin checkpoint of these tensors, by default a whole one."""

    def write(tensors=None):
        torch.save({"model": swin_tensors() if tensors is None else tensors}, tmp_path / "swin.pth")
        return tmp_path / "swin.pth"

    return write


def test_read_swin__fills_the_trunk(swin_tensors, swin_file):
    sizes, state = read_swin(swin_file())
    trunk = SwinTrunk(embed_dim=8, depths=sizes.depths, heads=sizes.heads, window=sizes.window)
    trunk.load_state_dict(state)
    block = trunk.layers[2].blocks[1]
    theirs = {name.removeprefix("layers.2.blocks.1."): t for name, t in swin_tensors().items()}
    stacked = torch.cat([block.attention.q_proj.weight, block.attention.k_proj.weight, block.attention.v_proj.weight])
    assert torch.equal(stacked, theirs["attn.qkv.weight"])
    assert torch.equal(block.layernorm_before.bias, theirs["norm1.bias"])
    assert torch.equal(block.mlp.fc2.weight, theirs["mlp.fc2.weight"])
    assert torch.equal(
        block.attention.relative_position_bias.relative_position_index.view(49, 49),
        theirs["attn.relative_position_index"],
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"absolute_pos_embed": torch.zeros(1)}, r"1 unknown \(absolute_pos_embed\)"),
        ({"layers.0.blocks.0.norm2.bias": None}, r"1 missing \(layers\.0\.blocks\.0\.norm2\.bias\)"),
        ({"layers.0.blocks.0.mlp.fc1.bias": torch.zeros(3)}, r"float32 \[3\] instead of float32 \[32\]"),
        ({"head.bias": torch.zeros(3)}, r"head\.bias float32 \[3\]"),
        ({"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49).long()}, "found others"),
        ({"layers.0.blocks.0.attn.relative_position_bias_table": torch.zeros(16, 1)}, "found 16 rows"),
    ],
)
def test_read_swin__accounts_for_every_key(swin_tensors, swin_file, change, message):
    tensors = {name: tensor for name, tensor in (swin_tensors() | change).items() if tensor is not None}
    with pytest.raises(InputError, match=message):
        read_swin(swin_file(tensors))


def test_read_swin__of_lavt(lavt_tensors, tmp_path):
    torch.save(lavt_tensors(), tmp_path / "lavt.pth")
    with pytest.raises(InputError, match="expected a Swin checkpoint, found one of LAVT"):
        read_swin(tmp_path / "lavt.pth")
