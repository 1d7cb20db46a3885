"""The gallery as the page has it: examples of what refinement does and of what is predicted, of one run a data set."""

from collections.abc import Callable, Sequence

import torch

from semires.cache.errors import StoreError
from semires.pipeline.audit.pictures.gallery import Gallery, GalleryRow, gallery
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.report.content import ExampleView, GalleryView, PictureView
from semires.pipeline.report.runs import ReportedRun
from semires.pipeline.reporting.html.templates import data_uri
from semires.pipeline.reporting.tables import plain_title
from semires.stages.data.errors import InputError
from semires.stages.data.splits import is_same_split
from semires.stages.train.matching import MatchConfig

CAPTIONS = {
    "image": "image",
    "candidates": "SAM's candidates",
    "label": "teacher's label",
    "refined": "refined label",
    "prediction": "prediction",
    "truth": "truth",
}
FILTERS = (("group", "which"), ("outcome", "outcome"), ("size", "object"), ("split", "split"), ("run", "run"))
MOST_REASONS = 6

Say = Callable[[str], None]


def gallery_view(
    runs: Sequence[ReportedRun],
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    num_rows: int,
    say: Say,
) -> GalleryView | None:
    """At most about `num_rows` examples of one run of each data set; None where there are none. What cannot be shown is
    said."""
    chosen = chosen_runs(runs)
    examples, notes, shown = [], [], []
    for number, run in enumerate(chosen if num_rows else ()):
        share = num_rows * (number + 1) // len(chosen) - num_rows * number // len(chosen)
        try:
            found = gallery(run.folder, paths, device, on_progress, num_rows=share)
        except (InputError, StoreError, OSError) as error:
            say(f"gallery of {run.folder}: {error}")
            continue
        shown += [run] if found.rows else []
        examples += _examples(found, run)
        notes += [f"{note}." for note in found.notes]
    if not examples:
        return None
    names = ", ".join(f"{run.row}, seed {run.config.seed} ({plain_title(run.config.split)})" for run in shown)
    return GalleryView(
        about=f"Of {names}: labels of unlabeled train images with the largest gains and losses, the worst and some at "
        "random, by the run's best model as the teacher; then predictions likewise. Click a picture to enlarge it.",
        examples=tuple(examples),
        filters=tuple(
            (field, heading, values)
            for field, heading in FILTERS
            if len(values := tuple(dict.fromkeys(getattr(example, field) for example in examples))) > 1
        ),
        notes=tuple(notes),
    )


def chosen_runs(runs: Sequence[ReportedRun]) -> list[ReportedRun]:
    """Of each data set the finished run to show: the paper's method with its matching, else one that refines, else any;
    of several the first."""
    chosen: list[ReportedRun] = []
    for run in sorted((run for run in runs if run.result is not None), key=_place):
        if not any(is_same_split(run.config.split, other.config.split) for other in chosen):
            chosen.append(run)
    return chosen


def _place(run: ReportedRun) -> tuple[bool, ...]:
    config = run.config
    return (not config.is_refined, config.method != "semires", config.match != MatchConfig(), not config.pwa)


def _examples(found: Gallery, run: ReportedRun) -> list[ExampleView]:
    return [_example(row, run) for row in found.rows]


def _example(row: GalleryRow, run: ReportedRun) -> ExampleView:
    taken = [candidate.reason for candidate in row.candidates if candidate.is_taken]
    about: list[str] = [row.group]
    if row.iou_before is None:
        about.append(f"IoU {row.iou_after:.2f}")
    else:
        about += [f"IoU {row.iou_before:.2f} → {row.iou_after:.2f}", f"{len(taken)} of {row.num_candidates} candidates"]
    more = len(taken) - MOST_REASONS
    return ExampleView(
        expression=row.expression,
        group=row.group,
        outcome=row.outcome,
        size=row.size,
        split=row.split,
        run=f"{plain_title(run.config.split)}, {run.row}",
        about=(*about, f"{row.size} object", f"ref {row.ref_id} of {row.split}"),
        reasons=(*taken[:MOST_REASONS], *([f"and {more} more"] if more > 0 else [])),
        pictures=tuple(
            PictureView(
                source=data_uri(picture.mime, picture.content),
                alt=f"“{row.expression}”: {picture.alt}",
                caption=_caption(picture.kind, row),
            )
            for picture in row.pictures
        ),
    )


def _caption(kind: str, row: GalleryRow) -> str:
    iou = {"label": row.iou_before, "refined": row.iou_after, "prediction": row.iou_after}.get(kind)
    return CAPTIONS[kind] + ("" if iou is None else f", {iou:.2f}")
