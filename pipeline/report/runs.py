"""Runs as the report reads them: what their folders hold, finished or not."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semires.pipeline.scoring.scores import RunScores
from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ReportedRun:
    """A run's folder. row: what its line of the tables is called. metrics: the lines of its `metrics.jsonl`; burn_in:
    of the run that it started from, () of a supervised run and where that is gone; burn_in_folder: where it is, or was.
    environments: what it was trained with. scores: None where they are not known; result: None of an unfinished run.
    """

    row: str
    folder: Path
    config: TrainConfig
    metrics: tuple[Mapping[str, Any], ...]
    burn_in_folder: Path | None
    burn_in: tuple[Mapping[str, Any], ...]
    environments: tuple[Mapping[str, Any], ...]
    result: Mapping[str, Any] | None
    scores: RunScores | None

    @property
    def share(self) -> str:
        """The labeled images as a column's heading has them."""
        return share_text(self.config)

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The line of metrics with the highest oIoU on val, whose weights are the run's."""
        return best_line(self.metrics)

    @property
    def burn_in_steps(self) -> int:
        """Steps that were taken before the run's own, 0 where that is not known."""
        return int(self.burn_in[-1]["num_steps"]) if self.burn_in else 0


def read_run(folder: Path, row: str, *, burn_in: Path | None = None, scores: RunScores | None = None) -> ReportedRun:
    """The run in `folder`. burn_in: where the one is that it started from; None for where the run says that it is.

    InputError where there is no run, or its files are damaged.
    """
    run = RunFolder(folder)
    config = run.read_config()
    if config.method != "supervised" and burn_in is None:
        location = run.read_sources().get("burn_in", {}).get("location", "burn-in")
        burn_in = folder / "burn-in" if location == "burn-in" else Path(location)
    metrics = tuple(run.read_metrics())
    if any("oiou" not in line.get("val", {}) or "step" not in line for line in metrics):
        raise InputError(
            f"{folder / 'metrics.jsonl'}: expected the metrics of a run, found a line without a step or scores on val; "
            "remove it"
        )
    return ReportedRun(
        row=row,
        folder=folder,
        config=config,
        metrics=metrics,
        burn_in_folder=burn_in,
        burn_in=() if burn_in is None else tuple(RunFolder(burn_in).read_metrics()),
        environments=tuple(run.read_environments()),
        result=run.read_result() if run.is_finished else None,
        scores=scores,
    )


def best_line(metrics: tuple[Mapping[str, Any], ...]) -> Mapping[str, Any] | None:
    """The line with the highest oIoU on val, the first of equals as in training; None where there is none."""
    return max(metrics, key=lambda line: line["val"]["oiou"], default=None)


def share_text(config: TrainConfig) -> str:
    """Which images are labeled, in as few words as tell it."""
    if config.labeled_list is not None:
        return config.labeled_name
    draw = f" (draw {config.labeled_seed})" if config.labeled_seed else ""
    return f"{100 * config.labeled:g}%{draw}"
