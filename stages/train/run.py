"""A training run from its config to its result: data, candidates, burn-in, mutual learning."""

import hashlib
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from shlex import quote
from typing import Any

import torch

from semires.cache.reader import CandidateStore
from semires.cache.views import CandidateView
from semires.stages.data.errors import InputError
from semires.stages.data.fingerprint import SplitFingerprint
from semires.stages.data.labeled import draw_labeled_images, load_labeled_images, split_refs
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.splits import is_own_data, is_same_split, own_path
from semires.stages.processes.environment import environment_of
from semires.stages.processes.lock import folder_lock
from semires.stages.processes.ranks import Ranks
from semires.stages.train.config import WHICH_IMAGES, TrainConfig
from semires.stages.train.models.build import NANO_NAMES
from semires.stages.train.models.interface import ResModel
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.train_data import TrainData
from semires.stages.train.trainer import OnMetrics, OnProgress, Say, Trainer


def train_run(
    config: TrainConfig,
    dataset: ReferDataset,
    path: Path,
    device: torch.device,
    *,
    store: str | Path | None = None,
    burn_in: Path | None = None,
    ranks: Ranks | None = None,
    on_progress: OnProgress | None = None,
    on_metrics: OnMetrics | None = None,
    say: Say | None = None,
) -> dict[str, Any]:
    """Train the run of `config` in the folder `path`; one that is there goes on, a finished one is left alone.

    store: the candidate store, with its view at the training size built; needed where labels are refined.
    burn_in: a finished supervised run of the same data to start from; without one the run first makes its own in
    `<path>/burn-in`. ranks: the processes that train it together, all of which call this alike. on_metrics, say: see
    `Trainer`.
    Returns the content of `result.json`. InputError where settings, data and folders do not fit together, and where
    another process trains in the folder.
    """
    ranks = ranks or Ranks()
    folder = RunFolder(path)
    config = as_begun(config, path, device)
    labeled, unlabeled = check_run(config, dataset, path, burn_in)
    if config.is_refined:
        check_candidates(store, unlabeled, config)
    with ExitStack() as held:
        sources = run_sources(config, store, burn_in)
        result = ranks.first(lambda: _begin(held, folder, config, _image_ids(labeled), sources))
        if result is not None:
            return result
        ranks.first(lambda: _record_environment(folder, config, dataset, device, ranks.world_size, say))
        if config.method != "supervised" and burn_in is None:
            burn_in = path / "burn-in"
            train_run(
                config.burn_in(),
                dataset,
                burn_in,
                device,
                ranks=ranks,
                on_progress=on_progress,
                on_metrics=on_metrics,
                say=say,
            )

        torch.manual_seed(config.seed)
        model = starting_model(config, folder, burn_in)
        if config.model not in NANO_NAMES:  # whose vocabulary is in the package
            ranks.first(lambda: folder.keep_network(model))
        size, tokenizer = model.image_size, model.tokenizer
        view = None if store is None or not config.is_refined else CandidateView(store, size)
        has_unlabeled = config.method != "supervised"
        data = TrainData(
            labeled=RefSamples(dataset, labeled, tokenizer, size, text=config.text),
            unlabeled=RefSamples(dataset, unlabeled, tokenizer, size, view, text=config.text)
            if has_unlabeled
            else None,
            val=RefSamples(dataset, dataset.refs_of("val"), tokenizer, size, text=config.eval_text),
            dropped_refs=dataset.problems.num_dropped,
        )
        trainer = Trainer(config, model, data, folder, device, on_progress, ranks=ranks, on_metrics=on_metrics, say=say)
        return trainer.train()


def starting_model(config: TrainConfig, folder: RunFolder, burn_in: Path | None) -> ResModel:
    """The model that the run in `folder` starts from, or goes on with once its state is read, on the CPU in training
    mode: of a burn-in with its best weights, else with the pre-trained ones.

    The network that the run, or its burn-in, has kept goes before files that may have moved since.
    """
    if burn_in is not None:
        source = RunFolder(burn_in)
        model = folder.kept_network(config) or source.kept_network(config) or config.build_model(pretrained=False)
        source.load_best(model)
        return model
    if config.method != "supervised":
        folder = RunFolder(folder.path / "burn-in")  # which it trains first
    # Before the first state its weights are the pre-trained ones, which are not kept.
    has_weights = folder.is_finished or (folder.is_started and folder.states().latest_step is not None)
    return (folder.kept_network(config) if has_weights else None) or config.build_model(pretrained=True)


def as_begun(config: TrainConfig, path: Path, device: torch.device, *, given: Collection[str] = ()) -> TrainConfig:
    """The config with which the run in the folder `path` is trained: auto resolved, and where a run was begun there
    under former defaults, with these, unless the settings are among those `given` by the user."""
    folder = RunFolder(path)
    if folder.is_started:
        config = config.continuing(folder.read_config(), given=given)
    return config.resolved(device)


def move_aside(path: Path) -> Path | None:
    """Move what is in a run's folder aside, so that it can begin anew; where to, None where there was nothing.

    InputError where another process trains there.
    """
    if not path.is_dir():
        return None
    with folder_lock(path, what="training"):
        return RunFolder(path).restart()


def _begin(
    held: ExitStack,
    folder: RunFolder,
    config: TrainConfig,
    labeled_images: list[int],
    sources: Mapping[str, Mapping[str, Any]] | None,
) -> dict[str, Any] | None:
    """Take the folder for this process and write down what the run is; of a finished one, touch nothing and return its
    result."""
    if not folder.is_finished:
        held.enter_context(folder_lock(folder.path, what="training"))
    folder.start(config, labeled_images, sources)
    return folder.read_result() if folder.is_finished else None


def _record_environment(
    folder: RunFolder,
    config: TrainConfig,
    dataset: ReferDataset,
    device: torch.device,
    num_processes: int,
    say: Say | None,
) -> None:
    """Write down what the run is trained with, the data set as it is now included: what a run goes on with may differ
    and is no reason to refuse it, but it is said and kept."""
    texts = {"train": config.text, "val": config.eval_text}
    data = {split: asdict(SplitFingerprint.of(dataset, split, text)) for split, text in texts.items()}
    begun = next((found["data"] for found in folder.read_environments()), data)
    others = [split for split in data if data[split] != begun[split]]
    if others and say is not None:
        say(f"{folder.path} goes on with other data than it was begun with ({', '.join(others)}): see environment.json")
    folder.add_environment(environment_of(device, num_processes) | {"data": data})


def check_run(
    config: TrainConfig, dataset: ReferDataset, path: Path, burn_in: Path | None = None
) -> tuple[list[Ref], list[Ref]]:
    """The labeled and the unlabeled train refs of a run.

    InputError for all that can be refused before any long work: too few labeled or no unlabeled images, a run in `path`
    with other settings, a `burn_in` that does not fit.
    """
    labeled, unlabeled = split_refs(dataset.refs_of("train"), _labeled_images(config, dataset))
    if config.method != "supervised" and not unlabeled:
        given, remedy = f"--labeled {config.labeled}", "give a smaller share, or use"
        if config.labeled_list is not None:
            given, remedy = "--labeled-list", "use"
        raise InputError(f"{given} leaves no unlabeled image: {remedy} --method supervised")
    dataset.refs_of("val")  # without it no evaluation says which weights are the best
    if burn_in is not None and config.method == "supervised":
        raise InputError(
            "--burn-in: expected a method of mutual learning, found supervised, which is itself the burn-in"
        )
    if burn_in is not None:
        check_burn_in(RunFolder(burn_in), config, _image_ids(labeled))
    RunFolder(path).check(config, _image_ids(labeled))
    return labeled, unlabeled


def run_sources(
    config: TrainConfig, store: str | Path | None, burn_in: Path | None
) -> dict[str, dict[str, Any]] | None:
    """What the run reads beside the data set, for its folder: the store's location and what its masks were made with,
    the burn-in's folder and its weights' sha256 (none of either where the run makes its own in `burn-in`); of own data
    the file's sha256 as well, for it is edited as one goes.

    None for a supervised run of no own data, which reads none of these.
    """
    sources: dict[str, dict[str, Any]] = {}
    if is_own_data(config.split):
        sha256 = hashlib.sha256(own_path(config.split).read_bytes()).hexdigest()
        sources["data"] = {"location": config.split, "sha256": sha256}
    if config.method == "supervised":
        return sources or None
    if config.is_refined:
        assert store is not None
        sources["store"] = store_source(store)
    sources["burn_in"] = {
        "location": "burn-in" if burn_in is None else str(burn_in),
        "sha256": None if burn_in is None else RunFolder(burn_in).best_sha256(),
    }
    return sources


def store_source(store: str | Path) -> dict[str, Any]:
    """What a run's folder records of its candidate store: where it lies and what its masks were made with."""
    manifest = CandidateStore(store).manifest
    return {
        "location": str(store),
        "split": manifest.split,
        "sam": manifest.sam,
        "sam_sha256": manifest.sam_sha256,
        "generator": dict(manifest.generator),
    }


def check_burn_in(folder: RunFolder, config: TrainConfig, labeled_images: list[int] | None = None) -> None:
    """InputError unless `folder` holds a finished supervised run of the model and labeled data that `config` names.

    labeled_images: their sorted ids, where the data set has been read: a list may have been edited, a data set changed.
    How it was trained may differ (epochs, rate, blur, dropout): its own config.json says it, `burn_in_differences` too.
    """
    found = folder.read_config()
    if not folder.is_finished:
        raise InputError(f"--burn-in: expected a finished run, found an unfinished one in {folder.path}; finish it")
    are_listed = config.labeled_list is not None or found.labeled_list is not None
    for name in ("method", "split", "model", "window", "image_size", *(() if are_listed else WHICH_IMAGES)):
        expected = "supervised" if name == "method" else getattr(config, name)
        if name == "split" and is_same_split(found.split, config.split):
            continue
        if getattr(found, name) != expected:
            raise InputError(
                f"--burn-in: expected a run with {name} {expected!r}, found {getattr(found, name)!r} in {folder.path}"
            )
    if labeled_images is not None and folder.read_labeled_images() != labeled_images:
        raise InputError(
            f"--burn-in: expected a run with the {len(labeled_images)} labeled images of this one, found others in "
            f"{folder.path}: give one of the same data and --labeled or --labeled-list"
        )


def burn_in_differences(folder: RunFolder, config: TrainConfig) -> dict[str, tuple[Any, Any]]:
    """In what the burn-in in `folder` was trained otherwise than one of `config`: name -> (there, asked for)."""
    found = folder.read_config().differences(config.burn_in())
    return {name: values for name, values in found.items() if name not in WHICH_IMAGES}  # `check_burn_in` sees to them


def check_candidates(store: str | Path | None, unlabeled: list[Ref], config: TrainConfig) -> None:
    """InputError unless the store holds every unlabeled image."""
    if store is None:
        raise InputError("refining labels needs a candidate store: run `semires cache-sam` first, or give --store")
    candidates = CandidateStore(store)
    missing = sorted({ref.image_id for ref in unlabeled} - set(candidates.image_ids.tolist()))
    failed = {image_id: why for image_id, why in candidates.failed.items() if image_id in missing} if missing else {}
    if failed:
        # Training decodes images as stage one does, so it would fail on the same files, some hours later.
        first = next(iter(failed))
        raise InputError(
            f"expected images that can be decoded, found {len(failed)} that {store} has set aside (first: image "
            f"{first}, {failed[first]}); replace the files, then run `semires cache-sam --split {quote(config.split)}`"
        )
    if missing:
        raise InputError(
            f"expected candidates of every unlabeled image in {store}, found none of {len(missing)} images (first: "
            f"{missing[0]}): run `{candidates.manifest.made_by} --split {quote(config.split)}`, it does only what is "
            "missing"
        )


def _image_ids(refs: list[Ref]) -> list[int]:
    return sorted({ref.image_id for ref in refs})


def _labeled_images(config: TrainConfig, dataset: ReferDataset) -> list[int]:
    if config.labeled_list is not None:
        return load_labeled_images(config.labeled_list, dataset.image_names)
    return draw_labeled_images(dataset.refs_of("train"), config.labeled, config.labeled_seed)
