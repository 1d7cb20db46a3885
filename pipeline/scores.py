"""Scores of a finished run on every evaluation split of its data set, kept in the run's folder.

scores.json   what `semires evaluate` shows
counts.npz    intersection and union of every expression, from which runs are compared
"""

import json
import zipfile
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console, counting
from semires.pipeline.reporting.paired_difference import PixelCounts
from semires.pipeline.stage_runs import load_dataset
from semires.stages.data.errors import InputError
from semires.stages.data.masks import RESAMPLING
from semires.stages.data.refer import ReferDataset
from semires.stages.train.evaluation import evaluate
from semires.stages.train.reading.loading import Loader
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

SCORES, COUNTS = "scores.json", "counts.npz"


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """`by_split`: evaluation split -> oiou, miou, precision and num_samples, as `SegmentationScores` has them.
    `targets`: the rule by which the true masks were resized, `masks.RESAMPLING`. `dropped_refs`: how many refs of the
    whole data set were dropped on loading; None in scores from before they were counted."""

    split: str
    method: str
    labeled: float
    by_split: dict[str, dict[str, Any]]
    targets: str = RESAMPLING
    dropped_refs: int | None = None


def has_scores(run: Path) -> bool:
    """Whether scores of a run were kept, by whatever rule."""
    return (run / SCORES).is_file()


def evaluate_run(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    dataset: ReferDataset | None = None,
    *,
    again: bool = False,
) -> RunScores:
    """Evaluate the best model of `run` and write `scores.json` and `counts.npz` there. dataset: the run's, where it is
    loaded already. again: also where it has scores.

    A finished run that has its scores is not measured again: its weights no longer change. Scores against targets of
    another resampling rule, as they were before there was a choice of rule, are measured anew, which is said.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    cached = run / SCORES
    if cached.is_file() and folder.is_finished and not again:
        try:
            known = json.loads(cached.read_text())
            measured = RunScores(**known)
        except (ValueError, TypeError) as error:
            raise InputError(f"expected scores that `semires evaluate` wrote, found others in {cached}") from error
        if "targets" in known and measured.targets == RESAMPLING:
            return measured
        console.print(f"{cached}: targets were resized by another rule, measured anew", soft_wrap=True)
    config, model = folder.load_model()
    model.to(device)
    dataset = dataset or load_dataset(paths, config.split, on_progress)
    by_split, counts = {}, dict[str, PixelCounts]()
    for name in dataset.spec.evaluation:
        refs = dataset.refs_of(name)
        samples = RefSamples(dataset, refs, model.tokenizer, model.image_size, text=config.eval_text)
        image_ids = np.repeat(samples.image_ids.numpy(), samples.num_expressions)

        def keep(
            intersections: Tensor, unions: Tensor, name: str = name, image_ids: NDArray[np.int64] = image_ids
        ) -> None:
            counts[name] = PixelCounts(image_ids=image_ids, intersections=intersections.numpy(), unions=unions.numpy())

        scores = evaluate(
            model,
            samples,
            device,
            precision=config.precision,
            loader=Loader(samples, config.num_workers, pin_memory=device.type == "cuda"),
            on_progress=counting(on_progress, f"expressions of {name}"),
            on_counts=keep,
        )
        by_split[name] = asdict(scores)
        # JSON has no number keys: "0.5" in the file as in the object, so that both read alike.
        by_split[name]["precision"] = {f"{at:g}": value for at, value in scores.precision.items()}
    found = RunScores(
        split=config.split,
        method=config.method,
        labeled=config.labeled,
        by_split=by_split,
        dropped_refs=dataset.problems.num_dropped,
    )
    if folder.is_finished:
        _write_counts(run / COUNTS, counts)
        cached.write_text(json.dumps(asdict(found), indent=1) + "\n")
    return found


def pixel_counts(run: Path, paths: Paths, device: torch.device, on_progress: OnProgress) -> dict[str, PixelCounts]:
    """Evaluation split -> the counts of a finished run's best model; measured where it has none that are kept.

    InputError where the run is not finished.
    """
    RunFolder(run).read_result()
    path = run / COUNTS
    if not path.is_file():
        evaluate_run(run, paths, device, on_progress, again=True)  # its scores may be from before counts were kept
    try:
        with np.load(path, allow_pickle=False) as file:
            of_splits = {key.partition("/")[0] for key in file}
            names = [field.name for field in fields(PixelCounts)]
            return {
                split: PixelCounts(**{name: file[f"{split}/{name}"] for name in names}) for split in sorted(of_splits)
            }
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"expected counts of `semires evaluate`, found others in {path}: remove it") from error


def _write_counts(path: Path, counts: dict[str, PixelCounts]) -> None:
    arrays = {f"{split}/{name}": array for split, of_split in counts.items() for name, array in vars(of_split).items()}
    temporary = path.with_name(f"{path.stem}.tmp.npz")
    np.savez_compressed(temporary, **arrays)
    temporary.replace(path)
