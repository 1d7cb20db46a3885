"""Which launcher a command uses: processes of this machine, as many as it has GPUs or threads, or a cluster."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.launching import Launcher, LocalLauncher
from semires.pipeline.running.slurm import SubmititLauncher, require_submitit
from semires.stages.data.errors import InputError

LauncherName = Literal["local", "slurm", "submitit-local"]
CLUSTERS = {"slurm": "slurm", "submitit-local": "local"}
CLUSTER_WORKERS = 16


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """Where runs are trained. launcher: `local`, processes of this machine; `slurm`, jobs of a cluster;
    `submitit-local`, what would be handed to Slurm, done here. num_workers: how many at once, None for what
    `workers_here` takes, or 16 jobs of Slurm. gpus_per_run: processes that train each, on a GPU each.
    slurm: parameters of submitit's executor. device: what `--device` was given.

    InputError for values that mean nothing.
    """

    launcher: LauncherName = "local"
    num_workers: int | None = None
    gpus_per_run: int = 1
    slurm: Mapping[str, Any] = field(default_factory=dict)
    device: str | None = None

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

    def device_of_runs(self, here: torch.device) -> torch.device:
        """What runs are trained on: the device of this machine; of a cluster a GPU, unless another was asked for, for a
        login node has none."""
        return torch.device("cuda") if self.launcher == "slurm" and self.device is None else here


def check_launch(options: LaunchOptions, device: torch.device) -> None:
    """InputError for what this machine cannot do: more workers than it has GPUs for, a cluster without submitit."""
    if options.launcher != "local":
        require_submitit(options.launcher)
    if options.launcher != "slurm":
        workers_here(options, device, 1)


def workers_here(options: LaunchOptions, device: torch.device, num_jobs: int) -> tuple[list[torch.device], int]:
    """The device of each worker of this machine, and torch's threads of each.

    On a CPU there is a worker more than threads, of one thread each, so that three runs on two cores do not leave one
    to be done alone. num_jobs: of all that a study has, not of those left: the last bits of a run depend on its
    threads. InputError for more than there are GPUs.
    """
    threads = torch.get_num_threads()
    if device.type == "cuda":
        num_gpus = 1 if device.index is not None else torch.cuda.device_count()
        most = num_gpus // options.gpus_per_run
        if not most:
            raise InputError(f"--gpus-per-run: expected at most {num_gpus}, found {options.gpus_per_run}; give fewer")
    else:
        most = threads + 1 if device.type == "cpu" and threads > 1 else 1
        most = max(1, most // options.gpus_per_run)
    num_workers = options.num_workers or min(num_jobs, most)
    num_threads = max(1, threads // (num_workers * options.gpus_per_run))
    if device.type != "cuda":
        return [device] * num_workers, num_threads
    if num_workers > most:
        raise InputError(
            f"--workers: expected at most {most} with {options.gpus_per_run} of {num_gpus} GPUs for each run, found "
            f"{num_workers}; give fewer, or a smaller --gpus-per-run"
        )
    first = device.index or 0
    return [torch.device("cuda", first + worker * options.gpus_per_run) for worker in range(num_workers)], num_threads


def make_launcher(
    options: LaunchOptions,
    paths: Paths,
    device: torch.device,
    num_jobs: int,
    logs: Path,
    on_progress: OnProgress,
) -> Launcher:
    """The launcher that `options` name, for a study of `num_jobs` jobs. logs: where a cluster's are kept. InputError as
    of `check_launch`, and for parameters that a cluster does not take."""
    if options.launcher == "slurm":
        num_workers, num_threads = options.num_workers or CLUSTER_WORKERS, None
    else:
        devices, num_threads = workers_here(options, device, num_jobs)
        if options.launcher == "local":
            return LocalLauncher(paths, devices, num_threads, on_progress)
        # submitit's local executor gives all its jobs the same GPUs.
        num_workers = options.num_workers or (1 if device.type == "cuda" else len(devices))
    return SubmititLauncher(
        paths,
        cluster=CLUSTERS[options.launcher],
        device=device,
        num_threads=num_threads,
        folder=logs,
        num_workers=num_workers,
        gpus_per_run=options.gpus_per_run,
        parameters=options.slurm,
    )
