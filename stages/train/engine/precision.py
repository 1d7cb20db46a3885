"""In which precision the forward passes run, and how fast the device multiplies."""

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(precision: Precision, device: torch.device) -> Precision:
    """fp32 or bf16; auto is bf16 where the device multiplies it in hardware: CUDA from Ampere on, and CPUs with
    AVX-512 BF16 or AMX. MPS stays in fp32."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        # Without emulation, which older cards would take several times the time for.
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    return "bf16" if device.type == "cpu" and _cpu_has_bf16() else "fp32"


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """For the models alone: views and losses stay in float32."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def multiply_fast(device: torch.device) -> None:
    """Let CUDA multiply float32 in TF32, of which every GPU since Ampere has eight times as much."""
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True


def _cpu_has_bf16() -> bool:
    # Where torch does not tell, who wants bf16 on a CPU says so.
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
