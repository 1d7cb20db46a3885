"""Finished runs, asked how long runs of their kind took."""

import dataclasses
import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.planning.devices import DATA_SHEETS, PlanDevice
from semires.stages.data.errors import InputError
from semires.stages.processes.environment import cpu_name
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder

SAME_WORK = (
    *("split", "labeled", "labeled_list", "method", "refine", "group", "model", "window", "image_size"),
    *("burn_in_epochs", "mutual_epochs", "num_evaluations", "patience", "batch_burn_in", "batch_labeled"),
    *("batch_unlabeled", "micro_batch", "gradient_checkpointing", "precision", "compile"),
)
"""Settings that decide how much a run computes; runs that differ in others only (seeds, rates, thresholds, files of
weights) are of one kind."""


@dataclass(frozen=True, kw_only=True)
class KnownTime:
    """Median seconds of finished runs, from the first step to the last with the evaluations on val between, and how
    many runs it is the median of."""

    seconds: float
    num_runs: int


class KnownRuns:
    """The finished runs in some folders, at any depth, that were trained as a planned run will be: on the machine's
    processor or on GPUs of the same name, by as many processes. Of runs that do not say where they were trained it is
    assumed.

    num_unread: finished runs whose files are damaged.
    """

    def __init__(self, folders: Sequence[Path], device: PlanDevice, num_processes: int) -> None:
        self._seconds: dict[str, list[tuple[int | None, float]]] = defaultdict(list)
        self.num_unread = 0
        if device.source == DATA_SHEETS:  # nothing was trained on it here
            return
        name = torch.cuda.get_device_name() if device.type == "cuda" else cpu_name()
        found = {path.resolve().parent for folder in folders for path in folder.rglob("result.json")}
        for path in sorted(found):
            folder = RunFolder(path)
            if not folder.is_started:
                continue
            try:
                config, seconds = folder.read_config(), float(folder.read_result()["seconds"])
                environments = folder.read_environments()
                are_like = all(_is_like(one, device.type, name, num_processes) for one in environments)
                threads = environments[-1]["threads"] if environments else None
            except (InputError, KeyError, TypeError, ValueError):
                self.num_unread += 1
                continue
            if are_like:
                self._seconds[kind_of(config, device)].append((threads, seconds))

    def time_of(self, kind: str, num_threads: int) -> KnownTime | None:
        """What runs of a kind took, those by as many threads of torch's where there are any; None where there is none.
        A burn-in that a run makes for itself is a run of its own."""
        of_kind = self._seconds.get(kind, [])
        found = [seconds for threads, seconds in of_kind if threads == num_threads] or [value for _, value in of_kind]
        return KnownTime(seconds=statistics.median(found), num_runs=len(found)) if found else None


def kind_of(config: TrainConfig, device: PlanDevice) -> str:
    """Equal for runs that compute as much: the settings of `SAME_WORK`, with the precision that auto means on a device;
    of burn-ins those that they read."""
    if config.method == "supervised":
        config = config.burn_in()
    settings = {name: getattr(config, name) for name in SAME_WORK}
    if config.precision == "auto":
        settings["precision"] = "bf16" if device.has_bf16 else "fp32"
    settings["group"] = dataclasses.asdict(config.group) if config.is_grouped else None
    return json.dumps(settings, sort_keys=True)


def _is_like(environment: Mapping[str, Any], device_type: str, name: str, num_processes: int) -> bool:
    found = environment["cuda"] if device_type == "cuda" else environment["cpu"]
    is_same_type = environment["device"] == device_type
    return is_same_type and found["name"] == name and environment["processes"] == num_processes
