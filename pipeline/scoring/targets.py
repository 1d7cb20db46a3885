"""What a run is to be measured on: splits of its own data set or of another, checked before anything is measured."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import SPLITS, is_own_data, is_same_split
from semires.stages.train.config import TrainConfig
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Target:
    """Splits of a data set, each with refs, and the run that they are for. `on`: the data set's name where it is not
    the run's own. `weights_sha256`: of the run's best model."""

    run: Path
    config: TrainConfig
    weights_sha256: str
    on: str | None
    dataset: ReferDataset
    splits: tuple[str, ...]

    def texts(self, split: str) -> list[str]:
        """Every expression of a split as the run's evaluation reads it, in the order of `every_expression`."""
        return [text for ref in self.dataset.refs_of(split) for text in ref.texts(self.config.eval_text)]


def choose_target(
    run: Path,
    paths: Paths,
    on_progress: OnProgress,
    dataset: ReferDataset | None = None,
    *,
    on: str | None = None,
    splits: Sequence[str] = (),
) -> Target:
    """The target of `run` on the data set `on`, None for its own, and `splits`, by default its evaluation splits that
    have refs. dataset: that data set, where it is loaded already.

    InputError where there is no run with weights, or the data is not here, has no refs in one of the `splits`, or has
    lost too many (`require_whole`).
    """
    folder = RunFolder(run)
    config = folder.read_config()
    weights = folder.best_sha256()
    on = None if on is None or is_same_split(on, config.split) else on
    dataset = dataset or load_dataset(paths, on or config.split, on_progress)
    return Target(
        run=run,
        config=config,
        weights_sha256=weights,
        on=on,
        dataset=dataset,
        splits=tuple(_choose_splits(dataset, paths, splits)),
    )


def choose_targets(
    run: Path, paths: Paths, on_progress: OnProgress, *, on: Sequence[str] = (), splits: Sequence[str] = ()
) -> list[Target]:
    """The targets that a user names: `splits` of each data set of `on`, of the run's own where there is none; a data
    set's name among the `splits` stands for its evaluation splits. InputError as `choose_target` raises it."""
    named = [name for name in splits if name in SPLITS or is_own_data(name)]
    plain = [name for name in splits if name not in named]
    of_run = RunFolder(run).read_config().split
    asked: dict[str | None, list[str]] = {}
    own: list[str | None] = [] if named and not plain else [None]
    for data in on or own:
        asked[None if data is None or is_same_split(data, of_run) else data] = plain
    for data in named:  # all of its splits, those named as well among them
        asked[None if is_same_split(data, of_run) else data] = []
    return [choose_target(run, paths, on_progress, on=data, splits=wanted) for data, wanted in asked.items()]


def _choose_splits(dataset: ReferDataset, paths: Paths, splits: Sequence[str]) -> list[str]:
    """Those asked for, each with refs, or the evaluation splits that have some; of what there is not is spoken."""
    problems, chosen = dataset.problems, list(dict.fromkeys(splits or dataset.spec.evaluation))
    require_whole(dataset, paths, chosen)
    if splits:
        for split in chosen:
            refs = dataset.refs_of(split)  # InputError where there are none
            num_without = sum(not ref.has_mask for ref in refs)
            if num_without:
                raise InputError(
                    f"{dataset.spec.name}: expected a mask of every ref of {split}, found {num_without} of {len(refs)} "
                    "without one, which nothing can be measured against; name another split"
                )
        return chosen
    present = {ref.split for ref in dataset.refs}
    absent = [split for split in chosen if split not in present]
    if len(absent) == len(chosen):
        raise InputError(
            f"{dataset.spec.name}: expected refs in one of its evaluation splits ({', '.join(chosen)}), found "
            f"{', '.join(sorted(present))}; name one with --split"
        )
    for split in absent:
        lost = problems.num_refs_of(split)
        why = f"all of its {lost} refs were dropped on loading" if lost else "this data has no refs of it"
        console.print(f"not measured: {dataset.spec.name} {split}: {why}", soft_wrap=True)
    return [split for split in chosen if split not in absent]
