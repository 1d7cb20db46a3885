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
    for _ in range(9):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        torch.ones(64 * 2**20, dtype=torch.uint8)
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    # Of 4 KB there are 16,384 pages. Now and then something small that was allocated in between is in the way.
    assert sorted(faults)[4] < 1000
