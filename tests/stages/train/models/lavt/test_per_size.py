import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode

from semires.stages.train.models.lavt.per_size import once_per_size

built: list[tuple[object, ...]] = []


@once_per_size
def ones(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    built.append((size, dtype, device))
    return torch.ones(size, dtype=dtype, device=device)


@pytest.fixture(autouse=True)
def _forget() -> None:
    built.clear()


def test_once_per_size__builds_for_each_size_dtype_and_device_once():
    like = torch.zeros(1)
    assert ones(11, like=like) is ones(11, like=torch.zeros(2))
    assert ones(12, like=like).shape == (12,)
    assert ones(11, like=like.double()).dtype == torch.float64
    assert len(built) == 3


def test_once_per_size__what_inference_mode_built_can_be_trained_with():
    with torch.inference_mode():
        ones(13, like=torch.zeros(1))
    weight = torch.ones(13, requires_grad=True)
    (weight * ones(13, like=weight)).sum().backward()  # saves the remembered tensor
    assert len(built) == 1


def test_once_per_size__nothing_of_a_trace_is_remembered():
    with FakeTensorMode():
        assert type(ones(14, like=torch.zeros(1))) is not Tensor
    assert type(ones(14, like=torch.zeros(1))) is Tensor
    assert len(built) == 2
    compiled = torch.compile(lambda x: x + ones(14, like=x), backend="eager", fullgraph=True)
    assert torch.equal(compiled(torch.zeros(14)), torch.ones(14))
