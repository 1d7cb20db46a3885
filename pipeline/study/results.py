"""What a study measured, ready to be printed, written and drawn: tables of cells, and the runs behind them."""

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semires.pipeline.scoring.scores import RunScores


@dataclass(frozen=True, kw_only=True)
class StudyRun:
    """A finished run of a study with its scores. burn_in: the folder that it started from, None of a supervised one."""

    row: str
    split: str
    share: float
    seed: int
    folder: Path
    burn_in: Path | None
    scores: RunScores


@dataclass(frozen=True, kw_only=True)
class Cell:
    """oIoU in per cent of each seed; `interval` holds 95% of the mean over seeds (bootstrap over images, and over seeds
    where there are several); the paper's number. None where there is none."""

    measured: tuple[float, ...]
    interval: tuple[float, float] | None
    published: float | None

    def __str__(self) -> str:
        if not self.measured:
            text = "–"
        elif len(self.measured) == 1:
            text = f"{self.measured[0]:.2f}"
        else:
            text = f"{statistics.mean(self.measured):.2f} ± {statistics.stdev(self.measured):.2f}"
        return text if self.published is None else f"{text} ({self.published:.2f})"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """By how many points of oIoU a row is above the study's row `against`: the mean over the seeds that both have, and
    the interval that holds 95% of it (paired, over seeds and images); the paper's difference. None where there is
    none."""

    mean: float | None
    interval: tuple[float, float] | None
    published: float | None

    def __str__(self) -> str:
        if self.mean is None or self.interval is None:
            text = "–"
        else:
            text = f"{self.mean:+.2f} ({self.interval[0]:+.2f} to {self.interval[1]:+.2f})"
        return text if self.published is None else f"{text} [{self.published:+.2f}]"


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The paper's numbers on another data set, beside a table of one that is not in the paper: what they are ("paper:
    RefCOCO 1% val"), and row -> number, None where the paper has none."""

    title: str
    rows: Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class SplitTable:
    """A study's table on one data set: row -> a cell for each of `columns` ("5% val", "val smallest 5%"); `gains`
    likewise, {} where the study has no row `against`. remarks: what a reader must know, a sentence each without its
    full stop."""

    split: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Cell, ...]]
    against: str | None
    gains: Mapping[str, tuple[Gain, ...]]
    reference: Reference | None = None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyResult:
    """All of a study. table: which published table its numbers are held against. not_measured: what is missing and why,
    a line each."""

    name: str
    title: str
    table: str | None
    tables: tuple[SplitTable, ...]
    runs: tuple[StudyRun, ...]
    not_measured: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        for run in values["runs"]:
            run["folder"] = str(run["folder"])
            run["burn_in"] = None if run["burn_in"] is None else str(run["burn_in"])
        return values
