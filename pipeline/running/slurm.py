"""Jobs handed to a cluster through submitit: a Slurm job each, or for trying it submitit's local executor.

    semires study table1 --full --launcher slurm --slurm partition=gpu --slurm timeout_min=2880

The machines share the file system: data, stores and runs lie at the same paths everywhere.
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import console
from semires.pipeline.running.jobs import Job, do_job
from semires.pipeline.running.launching import Ended
from semires.pipeline.running.stage_runs import choose_device
from semires.stages.data.errors import InputError

SECONDS_BETWEEN_LOOKS = 1.0


class SubmititLauncher:
    """Jobs of a cluster; at most `num_workers` are submitted at once.

    cluster: "slurm", or "local" for processes of this machine that submitit starts. device: what kind of device the
    jobs use there. folder: where submitit keeps their logs. parameters: of submitit's executor (`timeout_min`,
    `cpus_per_task`, `mem_gb`), any other as Slurm's own (`partition` is `slurm_partition`).

    InputError where submitit, or a cluster, is not here.
    """

    def __init__(
        self,
        paths: Paths,
        cluster: str,
        device: torch.device,
        folder: Path,
        num_workers: int,
        gpus_per_run: int,
        parameters: Mapping[str, Any],
    ) -> None:
        try:
            import submitit
        except ImportError as error:
            raise InputError(
                "--launcher slurm: expected the package submitit, found none; pip install 'semires[slurm]'"
            ) from error
        self.num_workers = num_workers
        self._paths, self._device, self._folder = paths, device.type, folder
        self._running: dict[str, tuple[Job, Any]] = {}
        try:
            self._executor = submitit.AutoExecutor(folder=folder / "%j", cluster=cluster)
            known = {"timeout_min": 24 * 60, **_parameters(parameters)}
            if self._device == "cuda":
                known |= {"gpus_per_node": gpus_per_run}
            self._executor.update_parameters(name="semires", **known)
        except (RuntimeError, NameError, TypeError, ValueError) as error:
            raise InputError(f"--launcher {cluster}: {' '.join(str(error).split())}; change --slurm") from error

    def start(self, job: Job) -> None:
        """As `Launcher`."""
        submitted = self._executor.submit(_do, job, self._paths, self._device)
        console.print(f"{job.label}: submitted as {submitted.job_id}", soft_wrap=True)
        self._running[submitted.job_id] = job, submitted

    def ended(self, seconds: float) -> list[Ended]:
        """As `Launcher`."""
        deadline = time.monotonic() + seconds
        while True:
            found = [self._end(job_id) for job_id, (_, submitted) in list(self._running.items()) if submitted.done()]
            if found or time.monotonic() >= deadline:
                return found
            time.sleep(min(SECONDS_BETWEEN_LOOKS, seconds))

    def stop(self) -> None:
        """As `Launcher`: Slurm's jobs get SIGTERM, upon which a run saves its state."""
        for _, submitted in self._running.values():
            submitted.cancel(check=False)
        self._running.clear()

    def _end(self, job_id: str) -> Ended:
        job, submitted = self._running.pop(job_id)
        error = submitted.exception()
        if error is None:
            was_mine, failure = submitted.result()
            return Ended(job=job, was_mine=was_mine, failure=failure)
        reason = " ".join(str(error).split())[:200]
        return Ended(
            job=job, failure=InputError(f"job {job_id} ended: {reason}; its logs are in {self._folder / job_id}")
        )


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    """submitit's own parameters as they are, Slurm's with its prefix."""
    own = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout")
    return {name if name in own or name.startswith("slurm_") else f"slurm_{name}": given[name] for name in given}


def _do(job: Job, paths: Paths, device: str) -> tuple[bool, InputError | StoreError | OSError | None]:
    """The job on the machine that it was given; what a user can mend comes back as it is."""
    try:
        return do_job(job, paths, choose_device(device), lambda *what: None), None
    except (InputError, StoreError, OSError) as error:
        return True, error
