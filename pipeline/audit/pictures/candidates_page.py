"""`semires cache show --html`: an image's candidates as a page, each a mask to point at, with its scores and, of a run,
why the refined label took it.

Axes: H, W the image's sides, M candidates.
"""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from semires.cache.candidates import Candidates
from semires.pipeline.audit.pictures.image_labels import ImageLabel, ImageLabels, label_image
from semires.pipeline.paths import Paths
from semires.pipeline.progress import progress
from semires.pipeline.reporting.contact_sheet import (
    GREY,
    check_image_size,
    largest_first,
    mask_colors,
    resized_candidates,
    resized_masks,
    score_text,
)
from semires.pipeline.reporting.html.templates import data_uri, render
from semires.pipeline.reporting.outlines import outline
from semires.pipeline.reporting.tables import METHODS
from semires.pipeline.running.stage_runs import choose_device
from semires.stages.data.images import load_image
from semires.stages.train.models.checkpoints.replacing import replace_text

LONGEST = 640  # pixels of the image's longer side at most: outlines are exact to these
QUALITY = 85


@dataclass(frozen=True, kw_only=True)
class _Mask:
    """A candidate as the page shows it. name: "#1" is the largest; number: its place in the store; point: in pixels of
    the image itself."""

    name: str
    number: int
    path: str
    color: str
    area: int
    share: str
    predicted_iou: str
    stability: str
    point: str
    about: str


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A candidate in the table of a label."""

    mask: _Mask
    iou: str
    s1: str
    s2: str
    is_taken: bool
    reason: str


@dataclass(frozen=True, kw_only=True)
class _Label:
    """A label with its pictures, (title, path, what it is in words), and candidates that share a pixel with it."""

    title: str
    facts: str
    outcome: str
    pictures: tuple[tuple[str, str, str], ...]
    rows: tuple[_Row, ...]
    num_others: int


def write_page(
    target: Path,
    candidates: Candidates,
    path: Path | None,
    run: Path | None,
    paths: Paths,
    device: str | None,
    *,
    upright: bool = False,
    ref_id: int | None = None,
    expressions: Sequence[str] = (),
) -> None:
    """Write the page of an image's candidates to `target`, of a `run` with its labels; see `label_image`. device: as
    `choose_device` takes it. upright: whether the candidates are of the image turned by its EXIF orientation."""
    labels = None
    if run is not None:
        with progress() as on_progress:
            labels, path = label_image(
                run,
                candidates,
                path,
                paths,
                choose_device(device),
                on_progress,
                upright=upright,
                ref_id=ref_id,
                expressions=expressions,
            )
    replace_text(target, candidates_page(candidates, path, labels, upright=upright))


def candidates_page(
    candidates: Candidates, path: Path | None, labels: ImageLabels | None = None, *, upright: bool = False
) -> str:
    """The page, one HTML file. path: the image's file, None for grey. labels: those of a run, where they are asked for.

    InputError for an image that cannot be read or of another size than the candidates have.
    """
    image = np.full((candidates.height, candidates.width, 3), GREY, np.uint8)
    if path is not None:
        image = load_image(path, upright=upright)
    check_image_size(candidates, image)
    scale = min(1.0, LONGEST / max(candidates.height, candidates.width))
    height, width = (max(1, round(side * scale)) for side in (candidates.height, candidates.width))
    masks = _masks(candidates, (height, width))
    return render(
        "candidates.html",
        title=f"image {candidates.image_id}" + ("" if path is None else f", {path.name}"),
        height=height,
        width=width,
        photo=_photo(image, (height, width)),
        masks=masks,
        run=labels,
        labels=[] if labels is None else [_label(label, masks, (height, width)) for label in labels.labels],
        method="" if labels is None else METHODS[labels.method],
    )


def _masks(candidates: Candidates, size: tuple[int, int]) -> list[_Mask]:
    """The largest first: smaller ones are drawn over them, where a pointer finds them."""
    order = largest_first(candidates.area).tolist()
    colors = mask_colors(len(order)).tolist()
    found = []
    for place, (index, mask) in enumerate(zip(order, resized_candidates(candidates, order, size), strict=True)):
        area = int(candidates.area[index])
        share = f"{100 * area / (candidates.height * candidates.width):.2g}%"
        predicted_iou = score_text(candidates.predicted_iou[index])
        stability = score_text(candidates.stability_score[index])
        x, y = candidates.points_xy[index].tolist()
        point = "–" if math.isnan(x) or math.isnan(y) else f"{x:.0f}, {y:.0f}"
        found.append(
            _Mask(
                name=f"#{place + 1}",
                number=index,
                path=outline(mask),
                color="rgb({}, {}, {})".format(*colors[place]),
                area=area,
                share=share,
                predicted_iou=predicted_iou,
                stability=stability,
                point=point,
                about=f"#{place + 1}: {area} px ({share}), predicted IoU {predicted_iou}, stability {stability}, "
                f"point {point}" + ("" if mask.any() else "; too small to be seen at this size"),
            )
        )
    return found


def _label(label: ImageLabel, masks: Iterable[_Mask], size: tuple[int, int]) -> _Label:
    mask_of = {mask.number: mask for mask in masks}
    shared = sorted((each for each in label.candidates if each.iou > 0), key=lambda each: (-each.iou, each.number))
    drawn = [("Teacher's label", label.label, label.iou_before), ("Refined label", label.refined, label.iou_after)]
    pictures = [(title, *_drawn(mask, size, iou)) for title, mask, iou in drawn]
    if label.truth is not None:
        pictures.append(("Truth", *_drawn(label.truth, size, None)))
    facts = [] if label.ref_id is None else [f"ref {label.ref_id}"]
    if label.iou_before is not None and label.iou_after is not None:
        facts.append(f"IoU with the truth {label.iou_before:.3f} before, {label.iou_after:.3f} after refinement")
    if not label.is_matched:
        facts.append("no candidate qualified: the teacher's label stays")
    if label.note:
        facts.append(label.note)
    return _Label(
        title=label.expression,
        facts="; ".join(facts),
        outcome=_outcome(label),
        pictures=tuple(pictures),
        rows=tuple(
            _Row(
                mask=mask_of[each.number],
                iou=f"{each.iou:.3f}",
                s1=f"{each.s1:.3f}",
                s2=f"{each.s2:.3f}",
                is_taken=each.is_taken,
                reason=each.reason,
            )
            for each in shared
        ),
        num_others=len(label.candidates) - len(shared),
    )


def _outcome(label: ImageLabel) -> str:
    if not label.is_matched:
        return "unmatched"
    if label.iou_before is None or label.iou_after is None:
        return ""
    change = label.iou_after - label.iou_before
    return "positive" if change > 0 else "negative" if change < 0 else "none"


def _drawn(mask: NDArray[np.bool_], size: tuple[int, int], iou: float | None) -> tuple[str, str]:
    """A label's outline on the page's image, and it in words."""
    words = f"{100 * mask.mean():.1f}% of the image" if mask.any() else "empty"
    return outline(resized_masks([mask], size)[0]), words + ("" if iou is None else f", IoU {iou:.3f} with the truth")


def _photo(image: NDArray[np.uint8], size: tuple[int, int]) -> str:
    """The image as an address that holds it."""
    height, width = size
    file = io.BytesIO()
    resized = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
    resized.save(file, "WEBP", quality=QUALITY)
    return data_uri("image/webp", file.getvalue())
