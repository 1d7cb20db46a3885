"""Devices that a run is planned for: those of a table, or the one that is here, whose speed is measured."""

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from semires.stages.data.errors import InputError
from semires.stages.train.engine.precision import multiply_fast, resolve_precision

Format = Literal["bf16", "tf32", "fp32"]

MIB, GIB = 2**20, 2**30
DATA_SHEETS = "by the vendor's data sheet"

# Side of the matrices that a speed is measured with, and how often.
_SIDES = {"cuda": 8192, "cpu": 1024}
_REPEATS = 5


@dataclass(frozen=True, kw_only=True)
class PlanDevice:
    """A device: `peaks` in TFLOP/s of a matrix product by number format, `memory` in bytes."""

    title: str
    type: Literal["cuda", "cpu"]
    memory: int
    peaks: dict[Format, float]
    source: str

    @property
    def has_bf16(self) -> bool:
        """Whether it multiplies bfloat16 in hardware."""
        return "bf16" in self.peaks

    def peak(self, *, is_bf16: bool) -> tuple[Format, float]:
        """What a run computes in, and its TFLOP/s; what is float32 to a user is TF32 where there is that."""
        wanted: tuple[Format, ...] = ("bf16", "tf32", "fp32") if is_bf16 else ("tf32", "fp32")
        number_format = next(name for name in wanted if name in self.peaks)
        return number_format, self.peaks[number_format]


def _gpu(title: str, gib: int, *, fp32: float, tf32: float | None = None, bf16: float | None = None) -> PlanDevice:
    given: dict[Format, float | None] = {"bf16": bf16, "tf32": tf32, "fp32": fp32}
    return PlanDevice(
        title=f"{title}, {gib} GiB",
        type="cuda",
        memory=gib * GIB,
        peaks={name: peak for name, peak in given.items() if peak is not None},
        source=DATA_SHEETS,
    )


NAMED = {
    "h200": _gpu("NVIDIA H200 SXM", 141, bf16=989, tf32=494, fp32=67),
    "h100": _gpu("NVIDIA H100 SXM", 80, bf16=989, tf32=494, fp32=67),
    "a100": _gpu("NVIDIA A100", 80, bf16=312, tf32=156, fp32=19.5),
    "a100-40": _gpu("NVIDIA A100", 40, bf16=312, tf32=156, fp32=19.5),
    "l40s": _gpu("NVIDIA L40S", 48, bf16=362, tf32=183, fp32=91.6),
    "l4": _gpu("NVIDIA L4", 24, bf16=121, tf32=60, fp32=30.3),
    "a10": _gpu("NVIDIA A10", 24, bf16=125, tf32=62.5, fp32=31.2),
    "rtx4090": _gpu("NVIDIA RTX 4090", 24, bf16=165, tf32=82.6, fp32=82.6),
    "rtx3090": _gpu("NVIDIA RTX 3090", 24, bf16=71, tf32=35.6, fp32=35.6),
    "rtx2080ti": _gpu("NVIDIA RTX 2080 Ti", 11, fp32=13.4),
    "v100": _gpu("NVIDIA V100 SXM2", 32, fp32=15.7),
    "t4": _gpu("NVIDIA T4", 16, fp32=8.1),
}
"""By the names of `--plan-device`. Older than Ampere, the last three have neither bfloat16 nor TF32."""


def plan_device(name: str | None) -> PlanDevice:
    """The device `name` of the table, or what is here: `cpu`, `cuda`, for None CUDA where there is one, else the CPU.

    InputError for another name, and for CUDA where there is none.
    """
    is_cuda_here = torch.cuda.is_available()
    if name is None:
        return _cuda_here("cuda") if is_cuda_here else _cpu_here()
    if name == "cpu":
        return _cpu_here()
    if name.partition(":")[0] == "cuda" and is_cuda_here:
        return _cuda_here(name)
    if (named := NAMED.get(name.lower())) is None:
        raise InputError(f"--plan-device: expected cpu, cuda where it is here, or {', '.join(NAMED)}, found {name!r}")
    return named


def _cuda_here(name: str) -> PlanDevice:
    device = torch.device(name)
    properties = torch.cuda.get_device_properties(device)
    multiply_fast(device)
    dtypes: dict[Format, torch.dtype] = {"fp32": torch.float32}
    if resolve_precision("auto", device) == "bf16":
        dtypes = {"bf16": torch.bfloat16, "tf32": torch.float32}
    return _measured(f"{properties.name}, here", device, properties.total_memory, dtypes)


def _cpu_here() -> PlanDevice:
    device = torch.device("cpu")
    dtypes: dict[Format, torch.dtype] = {"fp32": torch.float32}
    if resolve_precision("auto", device) == "bf16":
        dtypes = {"bf16": torch.bfloat16, **dtypes}
    threads = torch.get_num_threads()
    return _measured(
        f"the CPU here, {threads} threads" if threads > 1 else "the CPU here, 1 thread", device, _free_memory(), dtypes
    )


def _measured(title: str, device: torch.device, memory: int, dtypes: dict[Format, torch.dtype]) -> PlanDevice:
    side = _SIDES[device.type]
    return PlanDevice(
        title=title,
        type="cuda" if device.type == "cuda" else "cpu",
        memory=memory,
        peaks={name: _matmul_speed(device, dtype, side) for name, dtype in dtypes.items()},
        source=f"measured with {side} x {side} matrix products",
    )


def _matmul_speed(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """TFLOP/s of a square matrix product, the median of a few."""
    square = torch.ones(side, side, device=device, dtype=dtype)
    seconds = []
    for _ in range(1 + _REPEATS):
        start = time.perf_counter()
        square @ square
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - start)
    return 2 * side**3 / statistics.median(seconds[1:]) / 1e12


def _free_memory() -> int:
    """Bytes of main memory that are free or can be freed."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
