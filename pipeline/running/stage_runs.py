"""The two stages as commands and Table 1 call them: what is missing is made or named first."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.pipeline.datasets import load_dataset, require_whole, say_unread
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console, counting
from semires.pipeline.running.candidate_views import derive_view
from semires.pipeline.running.loggers import run_loggers
from semires.stages.cache_sam.concepts import ConceptSettings
from semires.stages.cache_sam.filling import CacheReport
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.held import SPLIT, Held, check_upright, look_at_store
from semires.stages.cache_sam.models.sam import LoadedSam, load_sam
from semires.stages.cache_sam.run import cache_images
from semires.stages.cache_sam.sources import ImageSource, train_images
from semires.stages.cache_sam.workers import WorkerGroup
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import TrainConfig
from semires.stages.train.run import check_run, starting_model, train_run
from semires.stages.train.run_folder import RunFolder


def choose_device(name: str | None) -> torch.device:
    """The device asked for, or CUDA where there is one, else the CPU; InputError for one that is not here.

    Of several workers that torchrun started on a machine, each takes a GPU of its own while there are enough.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    local_rank = os.environ.get("LOCAL_RANK")
    if name == "cuda" and local_rank is not None and torch.cuda.is_available():
        name = f"cuda:{int(local_rank) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(f"--device: expected a device of this machine such as cpu or cuda, found {name!r}") from error
    return device


def cache_sam(
    images: list[ImageSource],
    store: str | Path,
    *,
    split: str,
    loaded: LoadedSam,
    settings: GeneratorSettings | None,
    overwrite: bool,
    on_progress: OnProgress,
    concepts: ConceptSettings | None = None,
    upright: bool = False,
    origin: str = "",
    held: Held | None = None,
    group: WorkerGroup | None = None,
    precision: str | None = None,
    compile: bool = False,
    on_set_aside: Callable[[ImageSource, str], None] | None = None,
    on_compiled: Callable[[float], None] | None = None,
) -> CacheReport:
    """Stage one over `images` into `store`; of a `group` of workers, this worker's share. See `cache_images`."""
    return cache_images(
        images,
        store,
        split=split,
        loaded=loaded,
        settings=settings or loaded.settings,
        group=group,
        overwrite=overwrite,
        concepts=concepts,
        upright=upright,
        origin=origin,
        held=held,
        precision=precision,
        compile=compile,
        on_progress=counting(on_progress, "candidate masks"),
        on_set_aside=on_set_aside,
        on_compiled=on_compiled,
    )


def prepare_candidates(
    paths: Paths, dataset: ReferDataset, size: int, store: str | Path, on_progress: OnProgress
) -> None:
    """Make sure that the store has its view at the training size; RefShapes' candidates are made if missing.

    A store that holds every train image is taken as it is, also where it was made with other settings than ours.
    InputError where one of own data is not of the upright images.
    """
    if lacks_candidates(paths, dataset, store):
        images = train_images(dataset)
        held = look_at_store(images, store, SPLIT, on_progress=counting(on_progress, "comparing images"))
        for line in held.lines():
            console.print(line, soft_wrap=True)
        cache_sam(
            images,
            store,
            split="refshapes",
            origin=SPLIT,
            held=held,
            loaded=load_sam("tiny", None, torch.device("cpu")),
            settings=None,
            overwrite=False,
            on_progress=on_progress,
        )
    if dataset.is_upright:
        check_upright(train_images(dataset), store)
    derive_view(store, size, on_progress)


def lacks_candidates(paths: Paths, dataset: ReferDataset, store: str | Path) -> bool:
    """Whether `prepare_candidates` has stage one to do: RefShapes' own store does not hold every train image."""
    is_own = dataset.spec.name == "refshapes" and Path(store) == paths.store("refshapes")
    return is_own and not _holds_all(store, train_images(dataset))


def _holds_all(store: str | Path, images: list[ImageSource]) -> bool:
    try:
        held = set(CandidateStore(store).image_ids.tolist())
    except StoreError:  # none there, or a damaged one, which writing to it then reports
        return False
    return all(image.image_id in held for image in images)


def prepare(
    config: TrainConfig,
    paths: Paths,
    run: Path,
    on_progress: OnProgress,
    *,
    store: str | Path | None = None,
    burn_in: Path | None = None,
    dataset: ReferDataset | None = None,
) -> tuple[ReferDataset, str | Path | None]:
    """What the run of `config` in the folder `run` needs, made where it is missing: its data set and, for semires, its
    candidate store. dataset: the former, where it is read already. InputError for what `check_run` refuses."""
    dataset = dataset or load_dataset(paths, config.split, on_progress)
    require_whole(dataset, paths, ("train", "val"))
    # Before the candidates, which may take hours.
    check_run(config, dataset, run, burn_in)
    folder = RunFolder(run)
    # Refused here: weights that cannot be read, a factory that makes no model.
    model = folder.kept_network(config) if folder.is_finished else starting_model(config, folder, burn_in)
    if model is not None and not folder.is_finished:
        say_unread(dataset, model.tokenizer, {"train": config.text, "val": config.eval_text})
    if config.is_refined:
        store = store or paths.store(config.split)
        size = config.model_image_size if model is None else model.image_size
        prepare_candidates(paths, dataset, size, store, on_progress)
    return dataset, store


def train(
    config: TrainConfig,
    paths: Paths,
    run: Path,
    device: torch.device,
    on_progress: OnProgress,
    *,
    store: str | Path | None = None,
    burn_in: Path | None = None,
    log_to: Sequence[str] = (),
    ranks: Ranks | None = None,
    dataset: ReferDataset | None = None,
) -> dict[str, Any]:
    """Stage two: the run of `config` in the folder `run`, told to the loggers `log_to`; returns its result.

    ranks: the processes that train it together; what is missing the first of them makes. dataset: the run's, where it
    is read already.
    """
    ranks = ranks or Ranks()
    prepared = []

    def prepare_once() -> None:
        prepared.append(prepare(config, paths, run, on_progress, store=store, burn_in=burn_in, dataset=dataset))

    ranks.first(prepare_once)
    if not prepared:
        prepare_once()
    dataset, store = prepared[0]
    with run_loggers(log_to, run, paths.runs) as on_metrics:
        return train_run(
            config,
            dataset,
            run,
            device,
            store=store,
            burn_in=burn_in,
            ranks=ranks,
            on_progress=on_progress,
            on_metrics=on_metrics,
            say=lambda text: console.print(text, soft_wrap=True),
        )
