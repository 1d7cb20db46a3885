"""Options of `semires train` that the method or matching of a run does not read: typed in vain, they are refused."""

from collections.abc import Collection

from semires.stages.data.errors import InputError
from semires.stages.train.config import TrainConfig

REFINED, GROUPED = ("semires", "semires-cc"), ("semires-cc",)
METHODS_THAT_READ = {
    **dict.fromkeys(("matching", "iou_rate", "inter1", "inter2", "refine", "pwa"), REFINED),
    **dict.fromkeys(("expressions", "compete", "label_floor", "label_mean", "most_refs"), GROUPED),
    "confidence_filter": ("baseline",),
}
MATCHINGS_THAT_READ = {"iou_rate": ("iom",), "inter1": ("cpi", "cpi-u"), "inter2": ("cpi", "cpi-o")}


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
