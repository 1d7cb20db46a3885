import ctypes
import resource
import sys

import pytest
import torch

from semires.stages.train.engine.memory import keep_freed_memory


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc"
)
def test_keep_freed_memory__pages_come_once() -> None:
    keep_freed_memory(torch.device("cpu"))
    faults = []
    for megabytes in range(64, 32, -4):  # smaller each time: something small may lie where the one before was
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(megabytes * 2**20, dtype=torch.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    assert sorted(faults)[4] < 1000  # else each of their 9,000 to 16,000 pages of 4 KB
