"""The job that torchrun's environment variables describe: its key-value store, and this process's place in it."""

import os
from datetime import timedelta

import torch.distributed as dist

from semires.stages.data.errors import InputError

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def torchrun_job() -> tuple[dist.Store, int, int] | None:
    """(key-value store, rank, number of processes) of the job, or None where torchrun did not start this process.

    InputError where its variables are there in part, or where nobody answers at their address.
    """
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    missing = [name for name in _VARIABLES if not os.environ.get(name)]
    if missing:
        raise InputError(f"expected torchrun's environment variables, found no {', '.join(missing)}; use torchrun")
    try:
        store, rank, world_size = next(dist.rendezvous("env://", timeout=timedelta(seconds=300)))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"expected the store of a torchrun job, found: {first_line(error)}; start it anew") from error
    return store, rank, world_size


def restart_count() -> str:
    """How often torchrun has started its processes again; its store may outlive them, with what they wrote."""
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")


def first_line(error: Exception) -> str:
    """What torch's long messages begin with, at most 200 characters."""
    lines = str(error).splitlines()
    return lines[0][:200] if lines else type(error).__name__
