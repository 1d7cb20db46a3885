"""Tensors on their way from the host to a device."""

import torch
from torch import Tensor


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on `device`, which is its own or one that the host does not wait for.

    From memory that is not pinned CUDA copies only once all work before is done, and the host waits for that.
    """
    if tensor.device.type == "cpu" and device.type == "cuda" and torch.cuda.is_available() and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)
