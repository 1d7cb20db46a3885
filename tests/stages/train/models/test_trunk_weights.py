from pathlib import Path

import pytest
import torch
from torch import nn

from semires.stages.data.errors import InputError
from semires.stages.data.files.tensor_files import save_tensors
from semires.stages.train.models.trunk_weights import load_trunk


def make_trunk(channels: int = 4, layers: int = 1) -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(3, channels, 2) for _ in range(layers)))


def test_load_trunk__the_weights_written(tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    trunk, other = make_trunk(), make_trunk()
    save_tensors(trunk.state_dict(), path)
    load_trunk(other, path)
    images = torch.randn(1, 3, 8, 8)
    assert torch.equal(trunk(images), other(images))


def test_load_trunk__missing_damaged_or_other_size(tmp_path: Path) -> None:
    path = tmp_path / "trunk.safetensors"
    with pytest.raises(InputError, match="found nothing at"):
        load_trunk(make_trunk(), path)
    path.write_bytes(b"no safetensors")
    with pytest.raises(InputError, match="unreadable"):
        load_trunk(make_trunk(), path)
    save_tensors(make_trunk(channels=5).state_dict(), path)
    with pytest.raises(InputError, match=r"found 0\.bias of shape \(5,\) instead of \(4,\)"):
        load_trunk(make_trunk(), path)
    save_tensors(make_trunk(layers=2).state_dict(), path)
    with pytest.raises(InputError, match="instead of none"):
        load_trunk(make_trunk(), path)
