import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.pieces import Piece, check_tensors, renamed, to_ours, to_theirs

PIECES = [
    Piece("attn.qkv.weight", ("q.weight", "k.weight", "v.weight")),
    *renamed("conv.0", "linear", pointwise=True),
    *renamed("bn", "norm", ["num_batches_tracked"]),
]


def tensors():
    return {
        "attn.qkv.weight": torch.arange(18.0).view(6, 3),
        "conv.0.weight": torch.arange(8.0).view(4, 2, 1),
        "conv.0.bias": torch.arange(4.0),
        "bn.num_batches_tracked": torch.tensor(3),
    }


def test_to_ours__and_back():
    ours = to_ours(PIECES, tensors())
    assert {name: list(tensor.shape) for name, tensor in ours.items()} == {
        **{"q.weight": [2, 3], "k.weight": [2, 3], "v.weight": [2, 3]},
        **{"linear.weight": [4, 2], "linear.bias": [4], "norm.num_batches_tracked": []},
    }
    assert ours["k.weight"].tolist() == [[6, 7, 8], [9, 10, 11]]
    back = to_theirs(PIECES, ours)
    assert back.keys() == tensors().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors().items())


def test_to_theirs__on_meta_gives_shapes():
    on_meta = {name: tensor.to("meta") for name, tensor in to_ours(PIECES, tensors()).items()}
    shapes = {name: tensor.shape for name, tensor in to_theirs(PIECES, on_meta).items()}
    assert shapes == {name: tensor.shape for name, tensor in tensors().items()}


def test_check_tensors__names_every_kind_of_fault():
    check_tensors("LAVT", "a.pth", tensors(), tensors())
    optional = {"extra": torch.zeros(2)}
    check_tensors("LAVT", "a.pth", tensors() | optional, tensors(), optional)
    found = {f"odd{number}": torch.zeros(1) for number in range(5)} | tensors()
    del found["conv.0.bias"]
    found["conv.0.weight"] = found["conv.0.weight"].half()
    with pytest.raises(InputError) as caught:
        check_tensors("LAVT", "a.pth", found | {"extra": torch.zeros(3)}, tensors(), optional)
    assert str(caught.value) == (
        "expected the tensors of a LAVT in a.pth, found 5 unknown (odd0, odd1, odd2, ...), 1 missing (conv.0.bias), "
        "2 of another shape or type (conv.0.weight float16 [4, 2, 1] instead of float32 [4, 2, 1], "
        "extra float32 [3] instead of float32 [2]): give a whole LAVT checkpoint"
    )
