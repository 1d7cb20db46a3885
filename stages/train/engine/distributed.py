"""The student of several ranks."""

import inspect
import warnings
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from semires.stages.train.engine.batch_norm import synchronize_batch_norm

_BUFFERS = (
    "forward_sync_buffers"
    if "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
    else "broadcast_buffers"
)


def distributed(model: nn.Module, device: torch.device, *, has_idle_parameters: bool) -> DistributedDataParallel:
    """`model`, whose batch norm is changed in place to see all ranks, with gradients that are means over the ranks.

    has_idle_parameters: whether some may get no gradient in a step; each step then looks for them.
    """
    synchronize_batch_norm(model, device)
    # A table of one column may be laid out in two ways, of which torch warns: the numbers are the same.
    warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
    options: dict[str, Any] = {
        "device_ids": [device] if device.type == "cuda" else None,
        "gradient_as_bucket_view": True,
        "find_unused_parameters": has_idle_parameters,
        # Batch norm's statistics are equal on all ranks already. Torch has renamed what sends rank 0's.
        _BUFFERS: False,
    }
    return DistributedDataParallel(model, **options)
