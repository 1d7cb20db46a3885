"""A run's best model measured on splits of a data set; what a finished run keeps is measured once."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from semires.pipeline.progress import OnProgress, console
from semires.pipeline.scoring.counts import SplitCounts
from semires.pipeline.scoring.kept import KeptSplit, kept_file, read_kept, write_kept
from semires.pipeline.scoring.targets import Target
from semires.stages.data.errors import InputError
from semires.stages.data.fingerprint import SplitFingerprint
from semires.stages.data.masks import RESAMPLING
from semires.stages.data.problems import splits_of
from semires.stages.data.refer import ReferDataset
from semires.stages.train.evaluation import measure
from semires.stages.train.models.interface import ResModel
from semires.stages.train.models.unread_words import count_unread
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

FEW_EXPRESSIONS = 500
"""Up to so many are read in this process: others take a while to start."""


@dataclass(frozen=True, kw_only=True)
class MeasuredRun:
    """`by_split`: the target's splits. `kept`: these and what the run's folder holds of other splits of the data set,
    measured by the same. `is_finished`: whether it is kept there, as the weights will not change."""

    target: Target
    is_finished: bool
    by_split: Mapping[str, KeptSplit]
    kept: Mapping[str, KeptSplit]


def measure_target(
    target: Target,
    device: torch.device,
    on_progress: OnProgress,
    *,
    native: bool = False,
    num_workers: int | None = None,
) -> MeasuredRun:
    """Measure a run's best model on its target. native: at the images' own sizes as well. num_workers: processes that
    read, None for the run's own number.

    Of a finished run each split's counts are kept, and used again where the data's fingerprint, the weights and the
    settings are all the same.
    """
    folder, config, dataset = RunFolder(target.run), target.config, target.dataset
    path = kept_file(target.run, "counts", ".npz", target.on)
    image_size = folder.image_size(config)

    @functools.cache
    def measured_by(split: str) -> dict[str, Any]:
        """All that decides a split's counts."""
        return {
            "data": asdict(SplitFingerprint.of(dataset, split, config.eval_text)),
            "weights_sha256": target.weights_sha256,
            "text": config.eval_text,
            "image_size": image_size,
            "precision": config.precision,
            "targets": RESAMPLING,
        }

    kept = _still_valid(path, dataset, measured_by) if folder.is_finished else {}
    model: ResModel | None = None
    for split in target.splits:
        if split in kept and (kept[split].counts.native_unions is not None or not native):
            continue
        if model is None:
            model = folder.load_model()[1].to(device)
        counts, num_cut = _measure_split(model, target, split, device, on_progress, native, num_workers)
        kept[split] = KeptSplit(measured_by=measured_by(split), num_cut=num_cut, counts=counts)
        if folder.is_finished:
            _keep(path, kept)
    return MeasuredRun(
        target=target,
        is_finished=folder.is_finished,
        by_split={split: kept[split] for split in target.splits},
        kept=kept,
    )


def _still_valid(
    path: Path, dataset: ReferDataset, measured_by: Callable[[str], dict[str, Any]]
) -> dict[str, KeptSplit]:
    """What is kept and would be measured the same today; what is not is said."""
    kept = read_kept(path)
    if kept is None:
        console.print(
            f"{path}: expected counts of `semires evaluate`, found others, older or damaged ones: measured anew",
            soft_wrap=True,
        )
        return {}
    present = {ref.split for ref in dataset.refs}
    found = {}
    for split, of_split in kept.items():
        now = measured_by(split) if splits_of(split, present) else None
        if now == of_split.measured_by:
            found[split] = of_split
        else:
            changed = ["data"] if now is None else [name for name in now if now[name] != of_split.measured_by.get(name)]
            console.print(f"{path}: {split} was measured with other {' and '.join(changed)}: not used", soft_wrap=True)
    return found


def _measure_split(
    model: ResModel,
    target: Target,
    split: str,
    device: torch.device,
    on_progress: OnProgress,
    native: bool,
    num_workers: int | None,
) -> tuple[SplitCounts, int]:
    """A split's counts, and how many of its expressions are cut."""
    config, dataset = target.config, target.dataset
    samples = RefSamples(dataset, dataset.refs_of(split), model.tokenizer, model.image_size, text=config.eval_text)
    samples.keeps = False  # each image is read once: memory stays as it is
    num_expressions = int(samples.num_expressions.sum())
    if num_workers is None:
        num_workers = 0 if num_expressions <= FEW_EXPRESSIONS else config.num_workers
    loader = Loader(samples, num_workers, pin_memory=device.type == "cuda")
    found = measure(
        model,
        samples,
        device,
        precision=config.precision,
        loader=loader,
        native=native,
        on_progress=lambda done, total, note: on_progress(f"expressions of {split}", done, total, note),
    )
    loader.close()
    ref_ids, image_ids = (
        torch.repeat_interleave(ids, torch.from_numpy(samples.num_expressions)).numpy()
        for ids in (samples.ref_ids, samples.image_ids)
    )
    counts = SplitCounts(
        ref_ids=ref_ids,
        image_ids=image_ids,
        intersections=found.counts.intersections.numpy(),
        unions=found.counts.unions.numpy(),
        areas=found.counts.areas.numpy(),
        native_intersections=None if found.native is None else found.native.intersections.numpy(),
        native_unions=None if found.native is None else found.native.unions.numpy(),
    )
    unread = count_unread(model.tokenizer, target.texts(split))
    line = replace(unread, num_cut=0).line(f"{dataset.spec.name}, {split}")  # the table says how many are cut
    if line is not None:
        console.print(line, soft_wrap=True)
    return counts, unread.num_cut


def _keep(path: Path, kept: Mapping[str, KeptSplit]) -> None:
    """A folder that cannot be written costs what is kept, not what was measured."""
    try:
        write_kept(path, kept)
    except InputError as error:
        console.print(f"not kept, the next evaluation measures again: {error.__cause__ or error}", soft_wrap=True)
