"""Figure 6 of the paper, of finished runs: what refinement made of the unlabeled refs' labels, by the hidden masks.

audit.json   a run's counts, in its folder; the labels that they count are in audit.npz (judged_labels.py)

Axes: R refs.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.table import Table

from semires.cache.errors import StoreError
from semires.pipeline.audit.judged_labels import JudgedLabels, TeacherName, judge_labels, keep
from semires.pipeline.audit.refinements import match_name
from semires.pipeline.audit.unlabeled import kind_groups, size_groups, size_limits
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.published import published
from semires.pipeline.reporting.tables import title_of
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.matching import MatchConfig
from semires.stages.train.models.checkpoints.replacing import replace_text
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class GroupCounts:
    """Labels of some refs. positive, negative: those that refinement gave a higher, a lower IoU with the true mask;
    none: all others, matched or not. matched: those that a candidate qualified for. iou_before, iou_after: mean IoU in
    per cent."""

    num_refs: int
    positive: int
    negative: int
    none: int
    matched: int
    iou_before: float
    iou_after: float


@dataclass(frozen=True, kw_only=True)
class Reading:
    """The labels of one teacher. by_group: "all" refs, thirds by size, of RefShapes also kinds of objects."""

    teacher: TeacherName
    weights_sha256: str
    by_group: dict[str, GroupCounts]


@dataclass(frozen=True, kw_only=True)
class CoursePoint:
    """An evaluation of mutual learning: labels since the one before, as metrics.jsonl has them, in per cent; None where
    it does not know. matched, improved, worsened: shares of all labels. iou_before, iou_after: means of those whose
    mask is known. val_oiou: of the teacher at this step."""

    step: int
    num_steps: int
    matched: float | None
    improved: float | None
    worsened: float | None
    iou_before: float | None
    iou_after: float | None
    val_oiou: float | None


@dataclass(frozen=True, kw_only=True)
class RunAudit:
    """What a run's refinement did. matching: strategy and thresholds. readings: of its burn-in's model, where that is
    at hand, and of its best model. size_limits: the largest share of its image, in per cent, of a small and of a medium
    object. without_mask: unlabeled refs that are not counted, as nobody knows their masks. published: the paper's
    positive, negative and none of this data set, share and matching."""

    name: str
    run: str
    split: str
    method: str
    labeled: float
    seed: int
    strategy: str
    matching: str
    num_refs: int
    without_mask: int
    dropped_refs: int
    size_limits: tuple[float, float]
    readings: tuple[Reading, ...]
    course: tuple[CoursePoint, ...]
    published: tuple[int, int, int] | None
    notes: tuple[str, ...]

    def reading(self, teacher: TeacherName) -> Reading | None:
        """That of a teacher, None where it was not measured."""
        return next((reading for reading in self.readings if reading.teacher == teacher), None)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Figure6:
    """The audits of several runs, and what could not be measured, a line each."""

    audits: tuple[RunAudit, ...]
    notes: tuple[str, ...]


def figure6(runs: Sequence[Path], paths: Paths, device: torch.device, on_progress: OnProgress) -> Figure6:
    """Audit finished runs. One that cannot be audited, because it refines nothing or its data or candidates are not
    here, is a note."""
    datasets: dict[str, ReferDataset] = {}
    audits, notes = [], []
    for run in runs:
        try:
            split = RunFolder(run).read_config().split
            if split not in datasets:
                datasets[split] = load_dataset(paths, split, on_progress)
            audits.append(audit_run(run, paths, device, on_progress, dataset=datasets[split]))
        except (InputError, StoreError) as error:
            notes.append(f"{run} is not audited: {error}")
        else:
            notes.extend(audits[-1].notes)
    return Figure6(audits=tuple(audits), notes=tuple(notes))


def audit_run(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    dataset: ReferDataset | None = None,
    store: str | Path | None = None,
) -> RunAudit:
    """The audit of one finished run; InputError and StoreError as `judge_labels` raises them. It is written to the
    run's folder, with what decides it, and measured again only where that has changed. dataset: the run's, where it is
    loaded already; store: None for the data set's own."""
    config = RunFolder(run).read_config()
    dataset = dataset or load_dataset(paths, config.split, on_progress)
    require_whole(dataset, paths, ("train",))
    judged, lines = judge_labels(run, paths, device, on_progress, dataset, store=store)
    labels = judged["final"]
    size = labels.measured_by["image_size"]
    low, high = size_limits(torch.from_numpy(labels.areas))
    labeled = set(RunFolder(run).read_labeled_images())
    unlabeled = [ref for ref in dataset.refs_of("train") if ref.image_id not in labeled or not ref.has_mask]
    known = {ref.ref_id: ref for ref in unlabeled if ref.has_mask}
    kinds = kind_groups(dataset, [known[ref_id] for ref_id in labels.ref_ids.tolist()])
    groups = {name: rows.numpy() for name, rows in (size_groups(torch.from_numpy(labels.areas)) | kinds).items()}
    audit = RunAudit(
        name=run.resolve().name,
        run=str(run),
        split=config.split,
        method=config.method,
        labeled=config.labeled,
        seed=config.seed,
        strategy=config.match.strategy,
        matching=match_name(config.match),
        num_refs=len(labels.ref_ids),
        without_mask=sum(not ref.has_mask for ref in unlabeled),
        dropped_refs=dataset.problems.num_dropped,
        size_limits=(100 * low / size**2, 100 * high / size**2),
        readings=tuple(
            Reading(
                teacher=teacher,
                weights_sha256=of_teacher.measured_by["weights_sha256"],
                by_group=_by_group(of_teacher, groups),
            )
            for teacher, of_teacher in judged.items()
        ),
        course=course(run),
        published=_published_of(config),
        notes=tuple(lines),
    )
    content = {"measured_by": {name: dict(of.measured_by) for name, of in judged.items()}, "audit": audit.to_dict()}
    text = json.dumps(content, indent=1) + "\n"
    path = run / "audit.json"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        keep(lambda: replace_text(path, text))
    return audit


def _by_group(labels: JudgedLabels, groups: dict[str, NDArray[np.bool_]]) -> dict[str, GroupCounts]:
    before, after = labels.ious_before, labels.ious_after
    found = {}
    for name, rows in {"all": np.ones(len(before), bool), **groups}.items():
        if not rows.any():
            continue
        positive, negative = int((after > before)[rows].sum()), int((after < before)[rows].sum())
        found[name] = GroupCounts(
            num_refs=int(rows.sum()),
            positive=positive,
            negative=negative,
            none=int(rows.sum()) - positive - negative,
            matched=int(labels.matched[rows].sum()),
            iou_before=100 * float(before[rows].mean()),
            iou_after=100 * float(after[rows].mean()),
        )
    return found


def course(run: Path) -> tuple[CoursePoint, ...]:
    """The course of a run's mutual learning, an evaluation each; () of a supervised run. It reads metrics.jsonl alone,
    InputError where that is damaged."""
    return tuple(
        CoursePoint(
            step=line["step"],
            num_steps=line["num_steps"],
            matched=_per_cent(line.get("matched")),
            improved=_per_cent(line.get("improved")),
            worsened=_per_cent(line.get("worsened")),
            iou_before=_per_cent(line.get("label_iou_before")),
            iou_after=_per_cent(line.get("label_iou_after")),
            val_oiou=line.get("val", {}).get("oiou"),
        )
        for line in RunFolder(run).read_metrics()
        if line.get("phase") == "mutual"
    )


def _per_cent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def figure6_tables(found: Figure6) -> list[Table]:
    """For a terminal: what refinement did, and by size and kind of object; shares in per cent."""
    return [_outcomes(found.audits), _groups(found.audits)] if found.audits else []


def _outcomes(audits: Sequence[RunAudit]) -> Table:
    names = ("run", "matching", "teacher", "refs", "positive", "negative", "none", "matched", "IoU before", "after")
    drawn = _table("Labels by the hidden masks, before and after refinement, per cent", names, 3)
    for audit in audits:
        for reading in audit.readings:
            found = reading.by_group["all"]
            counts = (found.positive, found.negative, found.none, found.matched)
            shares = (f"{100 * count / found.num_refs:.1f}" for count in counts)
            ious = (f"{found.iou_before:.1f}", f"{found.iou_after:.1f}")
            drawn.add_row(audit.name, audit.matching, reading.teacher, str(found.num_refs), *shares, *ious)
    for (name, strategy), of_paper in paper_counts([(audit.split, audit.strategy) for audit in audits]).items():
        shares = (f"{100 * count / sum(of_paper):.1f}" for count in of_paper)
        drawn.add_row(name, strategy.upper(), "–", str(sum(of_paper)), *shares, "–", "–", "–")
    return drawn


def paper_counts(asked: Iterable[tuple[str, str]]) -> dict[tuple[str, str], tuple[int, int, int]]:
    """The paper's counts that stand beside those of data sets and strategies: (what they are, strategy) -> positive,
    negative, none. RefShapes, which the paper does not have, stands beside RefCOCO's, named."""
    found = {}
    for split, strategy in sorted({(_published_split(split), strategy) for split, strategy in asked}):
        of_paper = _published(split, strategy)
        if of_paper is not None:
            found[f"paper, {title_of(split)} 1%", strategy] = of_paper
    return found


def _published(split: str, strategy: str) -> tuple[int, int, int] | None:
    """The paper's positive, negative and none of a data set, 1% labeled, by the thresholds of its Table 2."""
    counts = [published("Figure 6", split, strategy.upper(), 0.01, name) for name in ("positive", "negative", "none")]
    positive, negative, none = (None if count is None else int(count) for count in counts)
    return None if positive is None or negative is None or none is None else (positive, negative, none)


def _published_of(config: TrainConfig) -> tuple[int, int, int] | None:
    """The paper's counts of a run of its settings, None of any other."""
    strategy = config.match.strategy
    is_the_papers = config.method == "semires" and config.match == MatchConfig(strategy=strategy)
    return _published(config.split, strategy) if is_the_papers and config.labeled == 0.01 else None


def _published_split(split: str) -> str:
    return "refcoco" if _published(split, "cpi-u") is None else split


def _groups(audits: Sequence[RunAudit]) -> Table:
    names = [name for name in audits[0].readings[0].by_group if name != "all"]
    drawn = _table("Matched, per cent of the refs, and mean IoU before > after", ("run", "teacher", *names), 2)
    for audit in audits:
        for reading in audit.readings:
            cells = []
            for name in names:
                found = reading.by_group.get(name)
                cells.append("–" if found is None else _group_cell(found))
            drawn.add_row(audit.name, reading.teacher, *cells)
    return drawn


def _group_cell(found: GroupCounts) -> str:
    return f"{100 * found.matched / found.num_refs:.0f}  {found.iou_before:.0f}>{found.iou_after:.0f}"


def _table(title: str, columns: Sequence[str], num_texts: int) -> Table:
    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for number, name in enumerate(columns):
        drawn.add_column(name, justify="left" if number < num_texts else "right", no_wrap=number >= num_texts)
    return drawn
