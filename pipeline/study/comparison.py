"""`semires study compare`: runs of one method beside runs of another, a pair a seed, on every evaluation split."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table

from semires.pipeline.datasets import load_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.paired_difference import PairedDifference, paired_difference
from semires.pipeline.scoring.scores import pixel_counts
from semires.stages.data.errors import InputError
from semires.stages.data.splits import is_same_split, plain_name
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Runs and those that they are compared with, in pairs, and evaluation split -> their difference."""

    runs: tuple[str, ...]
    against: tuple[str, ...]
    split: str
    by_split: dict[str, PairedDifference]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        values = asdict(self)
        for name, found in self.by_split.items():
            values["by_split"][name]["mean"] = found.mean
        return values


def compare_runs(
    runs: Sequence[Path], against: Sequence[Path], paths: Paths, device: torch.device, on_progress: OnProgress
) -> Comparison:
    """Compare finished runs, the nth with the nth; runs that were not scored are scored first.

    InputError, before anything is measured, where they are no pairs: of other numbers, or a pair of different data,
    labeled images or seeds; and where the data is not here, or has lost too many refs (`require_whole`).
    """
    if not runs or len(runs) != len(against):
        raise InputError(
            f"expected a run to compare with each run, a pair a seed, found {len(runs)} and {len(against)}: give "
            "--against once for each"
        )
    for one, other in zip(runs, against, strict=True):
        _check_pair(one, other)
    split, *others = [RunFolder(run).read_config().split for run in runs]
    unlike = [name for name in others if not is_same_split(name, split)]
    if unlike:
        found = " and ".join(sorted({split, *unlike}))
        raise InputError(f"expected runs on one data set, found {found}: compare one at a time")
    dataset = load_dataset(paths, split, on_progress)
    ours, theirs = (
        [pixel_counts(run, paths, device, on_progress, dataset) for run in group] for group in (runs, against)
    )
    return Comparison(
        runs=tuple(map(str, runs)),
        against=tuple(map(str, against)),
        split=split,
        by_split={
            name: paired_difference([counts[name] for counts in ours], [counts[name] for counts in theirs])
            for name in ours[0]
        },
    )


def _check_pair(one: Path, other: Path) -> None:
    folders = RunFolder(one), RunFolder(other)
    configs = [folder.read_config() for folder in folders]
    for folder in folders:
        folder.read_result()
    for name in ("split", "seed"):
        values = [getattr(config, name) for config in configs]
        if not (is_same_split(*values) if name == "split" else values[0] == values[1]):
            raise InputError(
                f"expected pairs of runs alike in {name}, found {values[0]!r} in {one} and {values[1]!r} in {other}: "
                "give them in one order"
            )
    if folders[0].read_labeled_images() != folders[1].read_labeled_images():
        raise InputError(f"expected pairs of runs with the same labeled images, found others in {one} and {other}")


def comparison_table(found: Comparison) -> Table:
    """The comparison for a terminal."""
    table = Table(
        title=f"oIoU on {plain_name(found.split)}, per cent, {len(found.runs)} pairs of runs; intervals hold 95%",
        title_justify="left",
    )
    for column in ("split", "against", "runs", "difference", "from", "to"):
        table.add_column(column, justify="left" if column == "split" else "right")
    for name, difference in found.by_split.items():
        means = (sum(values) / len(values) for values in (difference.theirs, difference.ours))
        interval = (difference.mean, difference.low, difference.high)
        table.add_row(name, *(f"{mean:.2f}" for mean in means), *(f"{value:+.2f}" for value in interval))
    return table
