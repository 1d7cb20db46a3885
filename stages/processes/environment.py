"""What a process computes with: the machine, versions, the source's commit. Nothing in it says whose machine it is."""

import os
import platform
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from semires.stages.processes.source_tree import own_commit

_PACKAGES = ("torch", "torchvision", "transformers", "zarr", "numpy")


def environment_of(device: torch.device, num_processes: int) -> dict[str, Any]:
    """What this process, one of so many that compute on devices of one type, works with, as plain values for JSON.

    started: now, UTC, ISO 8601. semires: version, git commit of its source tree, whether that has changes; cpu: name
    and the cores that may be used; cuda: None where the device is none. What cannot be found out is None.
    """
    commit = own_commit()
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "semires": {
            "version": _version("semires"),
            "commit": None if commit is None else commit.commit,
            "is_changed": None if commit is None else commit.is_changed,
        },
        "python": platform.python_version(),
        "packages": package_versions(_PACKAGES),
        "system": platform.platform(),
        "cpu": {"name": cpu_name(), "cores": usable_cores()},
        "device": device.type,
        "cuda": _cuda(device) if device.type == "cuda" else None,
        "processes": num_processes,
        "threads": torch.get_num_threads(),
    }


def package_versions(names: Iterable[str]) -> dict[str, str | None]:
    """The versions of installed packages by name; None of one that is not installed."""
    return {name: _version(name) for name in names}


def usable_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """The processor's name, else its architecture."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _cuda(device: torch.device) -> dict[str, Any]:
    """The device, how many of them this process sees, the version of NVIDIA's driver and of CUDA as torch has it."""
    return {
        "name": torch.cuda.get_device_name(device),
        "count": torch.cuda.device_count(),
        "driver": _driver_version(Path("/proc/driver/nvidia/version")),
        "runtime": torch.version.cuda,
    }


def _driver_version(path: Path) -> str | None:
    """Of the kernel's module: "NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue …"."""
    try:
        words = path.read_text(encoding="utf-8").partition("\n")[0].split()
    except OSError:
        return None
    return next((word for word in words if word.replace(".", "").isdecimal() and "." in word), None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
