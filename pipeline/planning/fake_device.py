"""Fake tensors of a device that need not be here: models and attention as they would be on it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional as F

# The efficient kernels read the mask in steps of so many values, and torch pads it to them.
_MASK_STEP = 16


@contextmanager
def fake_device(device: torch.device) -> Iterator[None]:
    """Within it new tensors are fake, and those on `device` compute as there.

    Fake tensors have a shape, a type and a device and hold nothing. A CUDA device is the same whether or not there is
    one: none is touched. Two things would notice, and are told otherwise: autocast, which turns itself off, and
    attention, which takes the kernels of the CPU.
    """
    with ExitStack() as stack:
        if device.type == "cuda":
            stack.enter_context(mock.patch("torch.cuda.is_available", return_value=False))
            stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", return_value=False))
            stack.enter_context(mock.patch("torch.cuda.is_bf16_supported", return_value=True))
            stack.enter_context(mock.patch("torch.nn.functional.scaled_dot_product_attention", _efficient_attention))
        # Constants that a model keeps, such as index tables, are no fake tensors.
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        yield


def to_fake(model: nn.Module, device: torch.device) -> None:
    """Put fake tensors on `device` in the place of the model's parameters and buffers; call it in `fake_device`.

    The model may be on the meta device. Parameters that several modules share stay shared.
    """
    known: dict[int, Tensor] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in known:
            made: Tensor = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=device)
            is_parameter = isinstance(tensor, nn.Parameter)
            known[id(tensor)] = nn.Parameter(made, tensor.requires_grad) if is_parameter else made
        return known[id(tensor)]

    for module in model.modules():
        for own in (module._parameters, module._buffers):
            replaced: dict[str, Any] = {name: fake(tensor) for name, tensor in own.items() if tensor is not None}
            own.update(replaced)


def _efficient_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """scaled_dot_product_attention by the kernel that CUDA has for any mask: it keeps no scores for the backward."""
    if enable_gqa:
        repeats = query.shape[-3] // key.shape[-3]
        key, value = key.repeat_interleave(repeats, -3), value.repeat_interleave(repeats, -3)
    if torch.is_autocast_enabled("cuda"):
        dtype = torch.get_autocast_dtype("cuda")
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            attn_mask = torch.zeros_like(attn_mask, dtype=query.dtype).masked_fill(~attn_mask, float("-inf"))
        width = attn_mask.shape[-1]
        attn_mask = F.pad(attn_mask.to(query.dtype), (0, -width % _MASK_STEP))[..., :width]
        attn_mask = attn_mask.expand(*query.shape[:-1], key.shape[-2])
    is_trained = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (query, key, value))
    attended: Tensor = torch.ops.aten._scaled_dot_product_efficient_attention(
        query, key, value, attn_mask, is_trained, dropout_p, is_causal, scale=scale
    )[0]
    return attended
