"""What a run's refinement made of each unlabeled ref's label, measured once and kept in the run's folder.

audit.npz   of each teacher, "final" or "burn-in", each ref's pixels with all that they were measured by

Axes: R refs whose masks are known, in the order of image and ref ids.
"""

import dataclasses
import hashlib
import json
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from semires.cache.errors import StoreError
from semires.cache.reader import CandidateStore
from semires.pipeline.audit.labels import count_labels
from semires.pipeline.audit.refinements import most_expressions, own_refinement
from semires.pipeline.audit.unlabeled import Unlabeled, open_unlabeled, require_finished, whole_images
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress, console
from semires.stages.data.errors import InputError
from semires.stages.data.fingerprint import SplitFingerprint
from semires.stages.data.masks import RESAMPLING
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.evaluation import BATCH_SIZE
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.models.checkpoints.replacing import replacing_file
from semires.stages.train.run_folder import RunFolder

TeacherName = Literal["burn-in", "final"]
FILE = "audit.npz"
_MEASURED_BY = "measured_by"


@dataclass(frozen=True, kw_only=True)
class JudgedLabels:
    """Of each ref, [R]: its id, the area of its true mask in pixels at the training size, the pixels that its label
    shares with the mask and that either has, before and after matching, int64; whether a candidate was matched, bool.
    measured_by: plain values that tell all that decides them."""

    measured_by: Mapping[str, Any]
    ref_ids: NDArray[np.int64]
    areas: NDArray[np.int64]
    intersections_before: NDArray[np.int64]
    unions_before: NDArray[np.int64]
    intersections_after: NDArray[np.int64]
    unions_after: NDArray[np.int64]
    matched: NDArray[np.bool_]

    @property
    def ious_before(self) -> NDArray[np.float64]:
        """IoU of each label with the mask before matching, in [0, 1]; an empty union counts 0."""
        return self.intersections_before / np.maximum(self.unions_before, 1)

    @property
    def ious_after(self) -> NDArray[np.float64]:
        """The same after matching."""
        return self.intersections_after / np.maximum(self.unions_after, 1)


def judge_labels(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    dataset: ReferDataset,
    *,
    store: str | Path | None = None,
    with_burn_in: bool = True,
) -> tuple[dict[TeacherName, JudgedLabels], list[str]]:
    """The labels of a finished run's own refinement, of its best model as the teacher and of the burn-in that it began
    with; and what is missing, a line each. dataset: the run's. store: None for the data set's own.

    What was kept is used again where the data's fingerprint, labeled images, weights, candidates and settings are all
    the same. InputError and StoreError as `open_unlabeled` raises them, and where the run refines nothing.
    """
    folder = RunFolder(run)
    config = folder.read_config()
    if not config.is_refined:
        raise InputError(f"expected a run that refines labels, found {run}, a {config.method} run that does not")
    require_finished(folder)
    store = store or paths.store(config.split)
    teachers: dict[TeacherName, RunFolder] = {"final": folder}
    lines = []
    if with_burn_in:
        burn_in = find_burn_in(run)
        if isinstance(burn_in, str):
            lines.append(f"{run}: labels of the burn-in are not measured: {burn_in}")
        else:
            teachers = {"burn-in": burn_in, "final": folder}
    fixed = _measured_by(folder, config, dataset, store, device)
    measured_by = {name: fixed | {"weights_sha256": teacher.best_sha256()} for name, teacher in teachers.items()}
    kept = _read(run / FILE)
    found = {name: kept[name] for name in teachers if name in kept and kept[name].measured_by == measured_by[name]}
    if found.keys() != teachers.keys():
        opened = open_unlabeled(run, paths, on_progress, dataset=dataset, store=store, makes_candidates=False)
        for name in [name for name in teachers if name not in found]:
            teachers[name].load_best(opened.model)
            found[name] = _judge(opened, measured_by[name], device, on_progress)
        _write(run / FILE, kept | found)
    return {name: found[name] for name in teachers}, lines


def find_burn_in(run: Path) -> RunFolder | str:
    """The finished run that `run` began with, or why it is not at hand. It is looked for where it lay when the run was
    begun, from the working directory and from the run, and beside the run."""
    source = RunFolder(run).read_sources().get("burn_in")
    if source is None:
        return "the run does not say which it began with"
    location = Path(source["location"])
    others = False
    for path in dict.fromkeys((run / location, location, run.parent / location.name)):
        folder = RunFolder(path)
        if not (path / "best.safetensors").is_file():
            continue
        if source["sha256"] in (None, folder.best_sha256()):
            return folder
        others = True
    return f"expected its weights in {location}, found {'others' if others else 'none'}"


def _measured_by(
    folder: RunFolder, config: TrainConfig, dataset: ReferDataset, store: str | Path, device: torch.device
) -> dict[str, Any]:
    """All that decides the labels but the weights, as JSON gives it back."""
    refinement = asdict(own_refinement(config))
    del refinement["name"]
    values = {
        "data": asdict(SplitFingerprint.of(dataset, "train", config.text)),
        "labeled_images_sha256": hashlib.sha256(json.dumps(folder.read_labeled_images()).encode()).hexdigest(),
        "candidates": _candidates(folder, store),
        "refinement": refinement,
        "text": config.text,
        "image_size": folder.image_size(config),
        "precision": config.resolved(device).precision,
        "targets": RESAMPLING,
    }
    plain: dict[str, Any] = json.loads(json.dumps(values))
    return plain


def _candidates(folder: RunFolder, store: str | Path) -> dict[str, Any]:
    """What the candidates were made with; where their store is gone, as the run has it."""
    try:
        manifest = CandidateStore(store).manifest
    except StoreError:
        recorded = folder.read_sources().get("store", {})
        return {name: value for name, value in recorded.items() if name != "location"}
    return {
        "split": manifest.split,
        "sam": manifest.sam,
        "sam_sha256": manifest.sam_sha256,
        "generator": dict(manifest.generator),
    }


def _judge(
    opened: Unlabeled, measured_by: Mapping[str, Any], device: torch.device, on_progress: OnProgress
) -> JudgedLabels:
    own = own_refinement(opened.config)
    chosen = (dataclasses.replace(own, match=None), own)
    plan = whole_images(opened.samples, most_expressions(chosen), BATCH_SIZE)
    precision = opened.config.resolved(device).precision
    teacher = EmaTeacher(opened.model.to(device))
    (before, after), areas = count_labels(opened.samples, plan, teacher, chosen, precision, device, on_progress)
    return JudgedLabels(
        measured_by=measured_by,
        ref_ids=np.array([ref.ref_id for ref in opened.known], np.int64),
        areas=areas.numpy(),
        intersections_before=before.intersections.numpy(),
        unions_before=before.unions.numpy(),
        intersections_after=after.intersections.numpy(),
        unions_after=after.unions.numpy(),
        matched=after.matched.numpy(),
    )


def _read(path: Path) -> dict[TeacherName, JudgedLabels]:
    """Teacher -> what is kept of it; nothing where there is no such file, and where it is damaged, which is said."""
    names = [field.name for field in fields(JudgedLabels) if field.name != _MEASURED_BY]
    found: dict[TeacherName, JudgedLabels] = {}
    try:
        with np.load(path, allow_pickle=False) as file:
            for teacher in [name for name in get_args(TeacherName) if f"{name}/{_MEASURED_BY}" in file]:
                measured_by = json.loads(str(file[f"{teacher}/{_MEASURED_BY}"]))
                arrays = {name: file[f"{teacher}/{name}"] for name in names}
                found[teacher] = JudgedLabels(measured_by=measured_by, **arrays)
    except FileNotFoundError:
        return {}
    except (OSError, EOFError, ValueError, TypeError, KeyError, zipfile.BadZipFile):
        console.print(f"{path}: expected judged labels, found other or damaged ones: measured anew", soft_wrap=True)
        return {}
    return found


def _write(path: Path, found: Mapping[TeacherName, JudgedLabels]) -> None:
    """A folder that cannot be written costs what is kept, not what was measured."""
    arrays: dict[str, Any] = {}
    for teacher, labels in found.items():
        arrays |= {f"{teacher}/{field.name}": getattr(labels, field.name) for field in fields(labels)}
        arrays[f"{teacher}/{_MEASURED_BY}"] = np.array(json.dumps(labels.measured_by))
    keep(lambda: _save(path, arrays))


def _save(path: Path, arrays: Mapping[str, Any]) -> None:
    with replacing_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)


def keep(write: Callable[[], None]) -> None:
    """Write what is kept; where that fails it is said, and costs nothing else."""
    try:
        write()
    except InputError as error:
        console.print(f"not kept, the next audit measures again: {error.__cause__ or error}", soft_wrap=True)
