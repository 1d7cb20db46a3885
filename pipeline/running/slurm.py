"""Jobs handed to a cluster through submitit: a Slurm job each, or for trying it submitit's local executor.

    semires study table1 --full --launcher slurm --slurm partition=gpu --slurm timeout_min=2880

The machines share the file system: data, stores and runs lie at the same paths everywhere.
"""

import os
import signal
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from semires.pipeline.paths import Paths
from semires.pipeline.progress import console
from semires.pipeline.running.jobs import Job, attempt
from semires.pipeline.running.launching import Ended, terminal_unheard
from semires.pipeline.running.stage_runs import choose_device
from semires.stages.data.errors import InputError

SECONDS_BETWEEN_LOOKS = 1.0
OWN = ("timeout_min", "mem_gb", "nodes", "cpus_per_task", "gpus_per_node", "tasks_per_node", "stderr_to_stdout")
"""Parameters that submitit has for every cluster."""


def require_submitit(launcher: str) -> ModuleType:
    """The module; InputError where it is not installed."""
    try:
        import submitit
    except ImportError as error:
        raise InputError(
            f"--launcher {launcher}: expected the package submitit, found none; pip install 'semires[slurm]'"
        ) from error
    found: ModuleType = submitit
    return found


class SubmititLauncher:
    """Jobs of a cluster; at most `num_workers` are submitted at once.

    cluster: "slurm", or "local" for processes of this machine that submitit starts. device: what kind of device the
    jobs use there. num_threads: torch's threads of each, None for as many as its machine lets it have. folder: where
    submitit keeps their logs. parameters: of submitit's executor (`OWN`), any other as Slurm's own (`partition` is
    `slurm_partition`).

    InputError where submitit or the cluster is not here, or does not take the parameters.
    """

    def __init__(
        self,
        paths: Paths,
        *,
        cluster: str,
        device: torch.device,
        num_threads: int | None,
        folder: Path,
        num_workers: int,
        gpus_per_run: int,
        parameters: Mapping[str, Any],
    ) -> None:
        submitit = require_submitit("slurm" if cluster == "slurm" else "submitit-local")
        self.num_workers = num_workers
        self._is_local = cluster == "local"
        self._paths, self._device, self._num_threads = paths, device.type, num_threads
        self._running: dict[str, tuple[Job, Any]] = {}
        self._refused: list[Ended] = []
        known = {"timeout_min": 24 * 60} | {
            name if name in OWN or name.startswith("slurm_") else f"slurm_{name}": value
            for name, value in parameters.items()
        }
        if device.type == "cuda":
            known |= {"gpus_per_node": gpus_per_run}
        try:
            self._executor = submitit.AutoExecutor(folder=folder, cluster=cluster)
            self._executor.update_parameters(name="semires", **known)
        except (RuntimeError, NameError, TypeError, ValueError, AssertionError) as error:
            raise InputError(f"--launcher {cluster}: {_in_one_line(error)}; change --slurm or --launcher") from error

    def start(self, job: Job) -> None:
        """As `Launcher`; a job that the cluster does not take has ended."""
        try:
            with terminal_unheard():  # at whose end a signal may raise: by then the job is known to `stop`
                submitted = self._executor.submit(_do, job, self._paths, self._device, self._num_threads)
                self._running[submitted.job_id] = job, submitted
        except (RuntimeError, OSError) as error:  # what sbatch says is of submitit's own kinds of RuntimeError
            self._refused.append(Ended(job=job, failure=f"the cluster did not take it: {_in_one_line(error)}"))
            return
        console.print(f"{job.label}: submitted as {submitted.job_id}", soft_wrap=True)

    def ended(self, seconds: float) -> list[Ended]:
        """As `Launcher`."""
        deadline = time.monotonic() + seconds
        while True:
            found, self._refused = self._refused, []
            found += [self._end(job_id) for job_id, (_, submitted) in list(self._running.items()) if submitted.done()]
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            time.sleep(min(SECONDS_BETWEEN_LOOKS, left))

    def stop(self) -> None:
        """As `Launcher`: the jobs get SIGTERM; those of this machine are waited for."""
        for job_id, (_, submitted) in self._running.items():
            if self._is_local:  # which submitit's own cancelling would kill after a second
                with suppress(ProcessLookupError):
                    os.kill(int(job_id), signal.SIGTERM)
            else:
                submitted.cancel(check=False)
        while self._is_local and not all(submitted.done() for _, submitted in self._running.values()):
            time.sleep(0.1)
        self._running.clear()

    def _end(self, job_id: str) -> Ended:
        job, submitted = self._running.pop(job_id)
        error = submitted.exception()
        if error is None:
            return Ended.of(job, submitted.result())
        why = f"job {job_id} ended without a result; its log is {submitted.paths.stderr}"
        # submitit's text is a traceback with rulers; what went wrong is the traceback's last line.
        lines = [line for line in str(error).splitlines() if line and not line[0].isspace() and "Error" in line]
        return Ended(job=job, failure=f"{why}: {lines[-1]}" if lines else why)


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _do(job: Job, paths: Paths, device: str, num_threads: int | None) -> bool | str:
    """The job on the machine that it was given; what `attempt` returns."""
    if num_threads is not None:
        torch.set_num_threads(num_threads)
    return attempt(job, paths, choose_device(device), lambda *what: None)
