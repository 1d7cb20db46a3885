"""Which launcher a command uses: processes of this machine, as many as it has GPUs or threads, or a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.launching import Launcher, LocalLauncher
from semires.pipeline.running.slurm import SubmititLauncher
from semires.stages.data.errors import InputError

LauncherName = Literal["local", "slurm", "submitit-local"]
CLUSTERS = {"slurm": "slurm", "submitit-local": "local"}
CLUSTER_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Where runs are trained. launcher: `local`, processes of this machine; `slurm`, jobs of a cluster;
    `submitit-local`, what would be handed to Slurm, done here. num_workers: how many at once, None for as many as the
    machine has GPUs, or threads; 16 jobs of a cluster. gpus_per_run: processes that train each, on a GPU each.
    slurm: parameters of submitit's executor.

    InputError for values that mean nothing.
    """

    launcher: LauncherName = "local"
    num_workers: int | None = None
    gpus_per_run: int = 1
    slurm: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.launcher not in get_args(LauncherName):
            raise InputError(
                f"--launcher: expected one of {', '.join(get_args(LauncherName))}, found {self.launcher!r}; change it"
            )
        for option, value in (("--workers", self.num_workers), ("--gpus-per-run", self.gpus_per_run)):
            if value is not None and value < 1:
                raise InputError(f"{option}: expected 1 or more, found {value}; change it")
        if self.slurm and self.launcher == "local":
            raise InputError("--slurm: expected --launcher slurm, found local; leave it out")


def workers_here(options: LaunchOptions, device: torch.device, num_jobs: int) -> tuple[list[torch.device], int]:
    """The device of each worker of this machine, and torch's threads of each.

    On a CPU there is a worker more than threads, of one thread each, so that three runs on two cores do not leave one
    to be done alone. Neither depends on how many jobs are left: the last bits of a run depend on its threads.
    InputError for more than there are GPUs.
    """
    if device.type != "cuda":
        threads = torch.get_num_threads()
        most = threads + 1 if threads > 1 and device.type == "cpu" else 1
        num_workers = options.num_workers or max(1, min(num_jobs, most // options.gpus_per_run))
        return [device] * num_workers, max(1, threads // (num_workers * options.gpus_per_run))
    num_gpus = 1 if device.index is not None else torch.cuda.device_count()
    most = num_gpus // options.gpus_per_run
    num_workers = options.num_workers or min(num_jobs, most)
    if not 1 <= num_workers <= most:
        raise InputError(
            f"--workers: expected at most {most} with {options.gpus_per_run} of {num_gpus} GPUs for each run, found "
            f"{num_workers}; give fewer, or a smaller --gpus-per-run"
        )
    first = device.index or 0
    return [torch.device("cuda", first + worker * options.gpus_per_run) for worker in range(num_workers)], 1


def make_launcher(
    options: LaunchOptions,
    paths: Paths,
    device: torch.device,
    num_jobs: int,
    logs: Path,
    on_progress: OnProgress,
) -> Launcher:
    """The launcher that `options` name, for `num_jobs` jobs. logs: where a cluster's are kept."""
    if options.launcher == "local":
        devices, num_threads = workers_here(options, device, num_jobs)
        return LocalLauncher(paths, devices, num_threads, on_progress)
    num_workers = options.num_workers or CLUSTER_WORKERS
    return SubmititLauncher(
        paths, CLUSTERS[options.launcher], device, logs, num_workers, options.gpus_per_run, options.slurm
    )
