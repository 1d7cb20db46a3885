"""Scores of a run on every evaluation split of its data set, or on others, kept in the run's folder.

scores.json           what `semires evaluate` shows, of all splits that were measured
counts.npz            what it is computed from (scoring/kept.py), from which runs are compared as well
...-on-NAME.json/npz  the same of another data set than the run's
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.pipeline.scoring.counts import PixelCounts
from semires.pipeline.scoring.kept import KeptSplit, kept_file
from semires.pipeline.scoring.measuring import MeasuredRun, measure_target
from semires.pipeline.scoring.split_scores import generalized_values, split_scores
from semires.pipeline.scoring.subsets import subsets
from semires.pipeline.scoring.targets import choose_target
from semires.stages.data.errors import InputError
from semires.stages.data.masks import RESAMPLING
from semires.stages.data.refer import ReferDataset
from semires.stages.train.models.checkpoints.replacing import replace_text
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """`split`: the data set that was measured. `by_split`: evaluation split -> the values of `split_scores`; `native`:
    the same at the images' own sizes, where that was asked for; `generalized`: gIoU, cIoU, N-acc and T-acc, where refs
    mean several objects or none; `data`: the split's fingerprint; `dropped_refs`: its
    refs that were dropped on loading; `cut_expressions`: those that lost words to the model's most tokens.

    `targets`: the rule by which the true masks were resized, `masks.RESAMPLING`. `dropped_refs`: how many refs of the
    whole data set were dropped on loading. `trained_on`: the run's data set. `weights_sha256`, `text`, `image_size`,
    `precision`: what else decides the scores. None and missing values in scores from before they were recorded.
    """

    split: str
    method: str
    labeled: float
    by_split: dict[str, dict[str, Any]]
    targets: str = RESAMPLING
    dropped_refs: int | None = None
    trained_on: str | None = None
    weights_sha256: str | None = None
    text: str | None = None
    image_size: int | None = None
    precision: str | None = None


def evaluate_run(
    run: Path, paths: Paths, device: torch.device, on_progress: OnProgress, dataset: ReferDataset | None = None
) -> RunScores:
    """The scores of `run` on the evaluation splits of its data set, measured where they are not kept. dataset: the
    run's, where it is loaded already."""
    return run_scores(measure_target(choose_target(run, paths, on_progress, dataset), device, on_progress))


def kept_scores(run: Path) -> RunScores | None:
    """The scores of a finished run as its folder has them, without its data; None where there are none of its weights,
    or none that can be read. InputError where there is no run with weights."""
    weights_sha256 = RunFolder(run).best_sha256()
    try:
        found = RunScores(**json.loads(kept_file(run, "scores", ".json", None).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    return found if found.weights_sha256 == weights_sha256 else None


def run_scores(measured: MeasuredRun) -> RunScores:
    """The scores of what was measured. Of a finished run those of all that is kept are written to its folder; one that
    cannot be written is said, and costs nothing else."""
    known = kept_scores(measured.target.run) if measured.is_finished and measured.target.on is None else None
    of_all = known if known is not None and _is_of(known, measured) else _scores(measured, measured.kept)
    if measured.is_finished:
        path = kept_file(measured.target.run, "scores", ".json", measured.target.on)
        text = json.dumps(asdict(of_all), indent=1) + "\n"
        try:
            if not path.is_file() or path.read_text(encoding="utf-8") != text:
                replace_text(path, text)
        except (InputError, OSError, UnicodeDecodeError) as error:
            console.print(f"scores are not written: {error.__cause__ or error}", soft_wrap=True)
    return replace(of_all, by_split={split: of_all.by_split[split] for split in measured.by_split})


def pixel_counts(
    run: Path, paths: Paths, device: torch.device, on_progress: OnProgress, dataset: ReferDataset | None = None
) -> dict[str, PixelCounts]:
    """Evaluation split -> the counts of a finished run's best model; measured where they are not kept. dataset: the
    run's, where it is loaded already. InputError where the run is not finished."""
    RunFolder(run).read_result()
    measured = measure_target(choose_target(run, paths, on_progress, dataset), device, on_progress)
    return {split: of_split.counts.pixels for split, of_split in measured.by_split.items()}


def counts_by_part(measured: MeasuredRun, parts: Sequence[str] = ()) -> dict[str, PixelCounts]:
    """The counts of each evaluation split; of `parts`, names of `subsets`, where some are given: "val smallest 5%" ->
    those of its expressions, where it has any."""
    found: dict[str, PixelCounts] = {}
    for split, kept in measured.by_split.items():
        if not parts:
            found[split] = kept.counts.pixels
            continue
        masks = _subsets(measured, split, kept)
        found |= {f"{split} {part}": kept.counts.pixels.part(masks[part]) for part in parts if part in masks}
    return found


def _scores(measured: MeasuredRun, kept: Mapping[str, KeptSplit]) -> RunScores:
    config, dataset = measured.target.config, measured.target.dataset
    order: Sequence[str] = [*dataset.spec.evaluation, *sorted(kept)]
    by = next(iter(kept.values())).measured_by
    return RunScores(
        split=dataset.spec.name,
        method=config.method,
        labeled=config.labeled,
        by_split={
            split: _split_values(measured, split, kept[split]) for split in dict.fromkeys(order) if split in kept
        },
        dropped_refs=dataset.problems.num_dropped,
        trained_on=config.split,
        **{name: by[name] for name in ("targets", "weights_sha256", "text", "image_size", "precision")},
    )


def _is_of(scores: RunScores, measured: MeasuredRun) -> bool:
    """Whether `scores` are what would be computed of what was measured: a second of resampling a run."""
    dataset = measured.target.dataset
    if (scores.split, scores.dropped_refs) != (dataset.spec.name, dataset.problems.num_dropped):
        return False
    if scores.by_split.keys() != measured.kept.keys():
        return False
    for split, kept in measured.kept.items():
        values, by = scores.by_split[split], kept.measured_by
        same = {name: by[name] for name in ("targets", "text", "image_size", "precision")}
        if any(getattr(scores, name) != value for name, value in same.items()) or values.get("data") != by["data"]:
            return False
        if not math.isclose(values["oiou"], kept.counts.pixels.oiou):
            return False
        if "intervals" not in values or ("native" in values) != (kept.counts.native_unions is not None):
            return False
        if values.get("subsets", {}).keys() != _subsets(measured, split, kept).keys():
            return False
    return True


def _split_values(measured: MeasuredRun, split: str, kept: KeptSplit) -> dict[str, Any]:
    of_subsets = _subsets(measured, split, kept)
    values = split_scores(kept.counts.pixels, of_subsets)
    generalized = generalized_values(kept.counts, measured.target.dataset.refs_of(split))
    if generalized is not None:
        values["generalized"] = generalized
    if kept.counts.native_pixels is not None:
        values["native"] = split_scores(kept.counts.native_pixels, of_subsets)
    return values | {
        "data": dict(kept.measured_by["data"]),
        "dropped_refs": len(measured.target.dataset.problems.lost(split)),
        "cut_expressions": kept.num_cut,
    }


def _subsets(measured: MeasuredRun, split: str, kept: KeptSplit) -> dict[str, NDArray[np.bool_]]:
    meaningless = [ref.ref_id for ref in measured.target.dataset.refs_of(split) if not ref.ann_ids]
    return subsets(kept.counts.ref_ids, kept.counts.areas, measured.target.texts(split), meaningless)
