"""How the C library hands out memory on the CPU."""

import ctypes
import sys

import torch

# Of glibc's <malloc.h>.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_KEPT = 1 << 30


def keep_freed_memory(device: torch.device) -> None:
    """Where training runs on the CPU, let this process keep what a step frees for the next one.

    Else glibc gives the large tensors' memory back to the system in each step, and each comes back page by page, as
    zeros. Nothing where the C library is another.
    """
    if device.type != "cpu" or sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in musl
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
        mallopt(_M_MMAP_THRESHOLD, _KEPT)
