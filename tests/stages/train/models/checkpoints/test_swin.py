import numpy as np
import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.swin import (
    position_index,
    resize_table,
    resize_tables,
    swin_pieces,
    swin_sizes,
    window_of_table,
)


def test_swin_sizes__of_the_shapes(swin_tensors):
    for prefix in ("", "backbone."):
        tensors = {prefix + name: tensor for name, tensor in swin_tensors(window=12).items()}
        sizes = swin_sizes(tensors, "a.pth", prefix)
        assert (sizes.embed_dim, sizes.depths, sizes.heads) == (8, (1, 1, 2, 1), (1, 2, 4, 8))
        assert (sizes.window, sizes.patch) == (12, 4)


@pytest.mark.parametrize("name", ["patch_embed.proj.weight", "layers.1.blocks.0.attn.relative_position_bias_table"])
def test_swin_sizes__cannot_be_told(swin_tensors, name):
    tensors = swin_tensors()
    del tensors[name]
    with pytest.raises(InputError, match=rf"expected {name} with . axes in a\.pth, found none"):
        swin_sizes(tensors, "a.pth")
    with pytest.raises(InputError, match=r"with . axes"):
        swin_sizes(tensors | {name: torch.zeros(3)}, "a.pth")


def test_swin_pieces__names_every_tensor_once(swin_tensors):
    pieces = swin_pieces((1, 1, 2, 1))
    theirs = [piece.theirs for piece in pieces]
    ours = [name for piece in pieces for name in piece.ours]
    assert len(set(theirs)) == len(theirs)
    assert len(set(ours)) == len(ours)
    left = {name for name in swin_tensors() if name not in theirs}
    assert {name.rpartition(".")[2] for name in left - {"norm.weight", "norm.bias", "head.weight", "head.bias"}} == {
        *("relative_position_index", "attn_mask")
    }


def test_position_index__as_the_original_code_makes_it(swin_tensors):
    for window in (1, 2, 7):
        index = swin_tensors(window=window)["layers.0.blocks.0.attn.relative_position_index"]
        assert torch.equal(position_index(window), index)


def test_window_of_table__only_odd_squares():
    assert [window_of_table((2 * window - 1) ** 2, "a.pth") for window in (1, 7, 12, 24)] == [1, 7, 12, 24]
    for rows in (2, 16, 170):
        with pytest.raises(InputError, match=rf"found {rows} rows"):
            window_of_table(rows, "a.pth")


def plain_bicubic(image: np.ndarray, side: int) -> np.ndarray:
    """Keys' cubic convolution with a = -0.75 at the centres of the new pixels, edges repeated, one pixel at a time."""

    def weight(distance: float) -> float:
        d, a = abs(distance), -0.75
        if d <= 1:
            return (a + 2) * d**3 - (a + 3) * d**2 + 1
        return a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a if d < 2 else 0.0

    old = len(image)
    rows = np.zeros((side, old))
    for new in range(side):
        at = (new + 0.5) * old / side - 0.5
        for source in range(int(np.floor(at)) - 1, int(np.floor(at)) + 3):
            rows[new, min(max(source, 0), old - 1)] += weight(at - source)
    return rows @ image @ rows.T


@pytest.mark.parametrize(("old", "new"), [(7, 12), (12, 7), (4, 5)])
def test_resize_table__is_plain_bicubic(old, new):
    table = torch.randn((2 * old - 1) ** 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    resized = resize_table(table, new)
    assert resized.shape == ((2 * new - 1) ** 2, 3)
    for head in range(3):
        expected = plain_bicubic(table[:, head].view(2 * old - 1, -1).numpy(), 2 * new - 1)
        np.testing.assert_allclose(resized[:, head].view(2 * new - 1, -1).numpy(), expected, atol=1e-12)


def test_resize_table__same_window_is_the_same(swin_tensors):
    table = torch.randn(169, 3)
    assert torch.equal(resize_table(table, 7), table)
    state = {"a.relative_position_bias_table": table, "b.weight": torch.ones(2)}
    resized = resize_tables(state, 12, "a.pth")
    assert resized["a.relative_position_bias_table"].shape == (529, 3)
    assert resized["b.weight"] is state["b.weight"]
