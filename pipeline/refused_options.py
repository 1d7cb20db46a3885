"""Options of `semires train` that are refused: what the method or matching of a run does not read, names of no run."""

from collections.abc import Collection
from pathlib import Path

from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig

REFINED, GROUPED = ("semires", "semires-cc"), ("semires-cc",)
METHODS_THAT_READ = {
    **dict.fromkeys(("matching", "iou_rate", "inter1", "inter2", "refine", "pwa"), REFINED),
    **dict.fromkeys(("expressions", "compete", "label_floor", "label_mean", "most_refs"), GROUPED),
    "confidence_filter": ("baseline",),
}
MATCHINGS_THAT_READ = {"iou_rate": ("iom",), "inter1": ("cpi", "cpi-u"), "inter2": ("cpi", "cpi-o")}


def check_name(name: str) -> None:
    """InputError for a run's name that is no folder below the runs: one that is empty or leads out of them."""
    if not name.strip() or ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"--name: expected a folder's name below --runs, found {name!r}; choose another")


def refuse_unread(config: TrainConfig, typed: Collection[str]) -> None:
    """InputError for an option among those `typed` that the run's method or matching does not read."""
    for name in typed:
        for what, found, readers in (
            ("method", config.method, METHODS_THAT_READ[name]),
            ("matching", config.match.strategy, MATCHINGS_THAT_READ.get(name)),
        ):
            if readers is not None and found not in readers:
                raise InputError(
                    f"--{name.replace('_', '-')}: expected --{what} {' or '.join(readers)}, found {found!r}; "
                    "leave it out"
                )
