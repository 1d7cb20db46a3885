"""What a study needs before it begins: its data sets, and all that can be refused of its runs before hours of work."""

from collections.abc import Iterable
from dataclasses import dataclass
from shlex import quote

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.running.stage_runs import lacks_candidates
from semires.pipeline.study.cells import CellRun, RunSpec
from semires.pipeline.study.folders import run_folder
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.data.splits import is_own_data, spec_of
from semires.stages.train.config import TrainConfig
from semires.stages.train.run import check_candidates, check_run, starting_model, store_source
from semires.stages.train.run_folder import RunFolder

Network = tuple[str | int | None, ...]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What can be done of a study: its data sets, the runs of cells, and why the others are not, a line each."""

    datasets: dict[str, ReferDataset]
    runs: tuple[CellRun, ...]
    not_measured: tuple[str, ...]


def what_is_missing(split: str, paths: Paths, *, with_candidates: bool = True) -> str | None:
    """What keeps a data set from being measured and what to put where, in one line; None if nothing does.
    with_candidates: whether any run reads them."""
    if split == "refshapes":
        return None
    missing = paths.missing_files(split)
    if missing and is_own_data(split):
        return f"{split}: expected a file there, found none; check the path"
    if missing:
        return (
            f"{split}: missing {', '.join(map(str, missing))}; {spec_of(split).hint}, then run "
            f"`semires cache-sam --split {quote(split)} --sam-checkpoint FILE`"
        )
    if not with_candidates:
        return None
    try:
        num_images = len(CandidateStore(paths.store(split)))
    except StoreError:
        num_images = 0
    if not num_images:
        return (
            f"{split}: its data is here, its candidates are not: run `semires cache-sam --split {quote(split)} "
            "--sam-checkpoint FILE`"
        )
    return None


def prepare_study(runs: Iterable[CellRun], paths: Paths, on_progress: OnProgress) -> Prepared:
    """Read the data sets of `runs` and refuse what cannot be trained: too few images for a share, images without
    candidates, weights that cannot be read. What is refused costs the other runs nothing."""
    datasets: dict[str, ReferDataset] = {}
    refused: dict[str, None] = {}
    possible: list[CellRun] = []
    known: dict[RunSpec, str | None] = {}
    networks: dict[Network, str | None] = {}
    of_split: dict[str, list[CellRun]] = {}
    for run in runs:
        of_split.setdefault(run.split, []).append(run)
    for split, of_data in of_split.items():
        is_refined = any(run.spec.config.is_refined for run in of_data)
        missing = what_is_missing(split, paths, with_candidates=is_refined)
        if missing is not None:
            refused[missing] = None
            continue
        try:
            dataset = load_dataset(paths, split, on_progress)
            require_whole(dataset, paths, ("train", *dataset.spec.evaluation))
        except (InputError, StoreError, OSError) as error:
            refused[str(error)] = None
            continue
        datasets[split] = dataset
        for run in of_data:
            for spec in filter(None, (run.spec.burn_in, run.spec)):
                if spec not in known:
                    known[spec] = _refused(spec, dataset, paths, networks)
            why = (run.spec.burn_in and known[run.spec.burn_in]) or known[run.spec]
            if why is None:
                possible.append(run)
            else:
                refused[f"{split} {run.share * 100:g}%: {why}"] = None  # the same is wrong with every seed
    return Prepared(datasets=datasets, runs=tuple(possible), not_measured=tuple(refused))


def _refused(spec: RunSpec, dataset: ReferDataset, paths: Paths, networks: dict[Network, str | None]) -> str | None:
    """Why a run cannot be trained, None where nothing speaks against it. networks: the same of models that were asked
    about before, each of which is read once for all runs; what is found is added."""
    config, folder = spec.config, run_folder(paths, spec)
    try:
        labeled, unlabeled = check_run(config, dataset, folder)
        store = paths.store(config.split)
        if config.is_refined and not lacks_candidates(paths, dataset, store):
            check_candidates(store, unlabeled, config)
            # Its address does not tell what the candidates are of: they may be made after it was asked for.
            images = sorted({ref.image_id for ref in labeled})
            RunFolder(folder).check(config, images, {"store": store_source(store)})
        network = (config.model, config.swin, config.bert, config.clipseg, config.window, config.image_size)
        starts = folder if spec.burn_in is None else run_folder(paths, spec.burn_in)  # a burn-in keeps its network
        if not RunFolder(folder).is_finished and not RunFolder(starts).is_finished:
            if network not in networks:
                networks[network] = _refused_model(config, RunFolder(folder))
            return networks[network]
    except (InputError, StoreError, OSError) as error:
        return str(error)
    return None


def _refused_model(config: TrainConfig, folder: RunFolder) -> str | None:
    try:
        starting_model(config, folder, None)
    except (InputError, StoreError, OSError) as error:
        return str(error)
    return None
