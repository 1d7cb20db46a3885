"""What a study has done, piece by piece: a run with its scores, or the candidates of a data set.

Each is done by whoever claims it, in a process of its own: of this machine, or wherever a cluster puts it.
"""

import io
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import torch

from semires.cache.errors import StoreError
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.claims import ClaimLost, claimed
from semires.pipeline.running.processes import in_one_line
from semires.pipeline.running.stage_runs import prepare_candidates, train
from semires.pipeline.running.under_torchrun import train_under_torchrun
from semires.pipeline.scoring.scores import evaluate_run
from semires.stages.data.datasets import open_dataset
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.stopping import StopSignals
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """The run of `config` in `folder`, and its scores; arguments as `stage_runs.train` has them. num_processes: how
    many train it, on a GPU each; torchrun starts them where they are several."""

    label: str
    config: TrainConfig
    folder: Path
    burn_in: Path | None
    log_to: Sequence[str] = ()
    num_processes: int = 1

    def is_done(self) -> bool:
        """Whether the run is finished, and scored."""
        return RunFolder(self.folder).is_finished and (self.folder / "scores.json").is_file()


@dataclass(frozen=True, kw_only=True)
class CandidatesJob:
    """The candidates of the data set that `config` names, which is RefShapes, and their view at its training size;
    `folder` is what is claimed."""

    label: str
    config: TrainConfig
    folder: Path


Job = TrainJob | CandidatesJob


def attempt(job: Job, paths: Paths, device: torch.device, on_progress: OnProgress) -> bool | str:
    """As `do_job`; what a user can mend is not raised but returned, in a line."""
    try:
        return do_job(job, paths, device, on_progress)
    except (InputError, StoreError, torch.OutOfMemoryError, OSError) as error:
        return str(in_one_line(error, device) or error)
    except MemoryError as error:
        return f"expected enough memory, found none left ({error}): end other programs, or give fewer --workers"


def do_job(job: Job, paths: Paths, device: torch.device, on_progress: OnProgress) -> bool:
    """Do a job; returns whether it was to be had: what another process has claimed, that one does.

    Errors as training and evaluation raise them. A signal ends it at once where nothing is half done (`StopSignals`),
    training after its step and with a state saved.
    """
    with StopSignals() as stop, stop.interruptible():
        try:
            with claimed(job.folder) as is_mine:
                if is_mine:
                    _do(job, paths, device, on_progress)
                return is_mine
        except ClaimLost:
            return False


def _do(job: Job, paths: Paths, device: torch.device, on_progress: OnProgress) -> None:
    # Not `read_dataset`: the command that wants it has said what the data set lost.
    dataset = open_dataset(paths.data, job.config.split, paths.images_of(job.config.split))
    if isinstance(job, CandidatesJob):
        prepare_candidates(paths, dataset, job.config.model_image_size, paths.store(job.config.split), on_progress)
    else:
        _train(job, paths, device, on_progress, dataset)
        evaluate_run(job.folder, paths, device, on_progress, dataset)


def _train(job: TrainJob, paths: Paths, device: torch.device, on_progress: OnProgress, dataset: ReferDataset) -> None:
    if job.num_processes > 1:
        train_under_torchrun(
            job.config,
            paths,
            job.folder,
            device,
            on_progress,
            num_processes=job.num_processes,
            burn_in=job.burn_in,
            log_to=job.log_to,
        )
        return
    with _quiet(job.log_to):
        train(
            job.config,
            paths,
            job.folder,
            device,
            on_progress,
            dataset=dataset,
            burn_in=job.burn_in,
            log_to=job.log_to,
        )


@contextmanager
def _quiet(loggers: Sequence[str]) -> Iterator[None]:
    """What loggers print of themselves would go across the display of the command that has it done."""
    os.environ.setdefault("WANDB_SILENT", "true")
    with redirect_stdout(io.StringIO()) if loggers else nullcontext():
        yield
