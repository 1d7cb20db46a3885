"""What a run's model says of one image's refs, and what matching makes of it against the image's candidates.

Axes: M candidates, P packed bytes, S side of the training images.
"""

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.cache.bits import resize_nearest_packed
from semires.cache.candidates import Candidates
from semires.pipeline.audit.labels import labels_of
from semires.pipeline.audit.pictures.gallery_rows import iou
from semires.pipeline.audit.pictures.reasons import Judgement, judgements
from semires.pipeline.audit.refinements import match_name, most_expressions, own_refinement
from semires.pipeline.audit.unlabeled import whole_images
from semires.pipeline.datasets import load_dataset
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.contact_sheet import check_image_size
from semires.stages.data.errors import InputError
from semires.stages.data.images import load_image, resize_image
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.models.interface import ResModel
from semires.stages.train.reading.samples import Batch, RefSamples, Sample, collate
from semires.stages.train.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class ImageLabel:
    """The label of one expression on the image. ref_id: None of an expression that was typed. label, refined: bool
    [S, S], before and after matching; truth: where it is known. candidates: what matching made of each. note: what else
    is to be known, "" for nothing."""

    ref_id: int | None
    expression: str
    label: NDArray[np.bool_]
    refined: NDArray[np.bool_]
    truth: NDArray[np.bool_] | None
    is_matched: bool
    iou_before: float | None
    iou_after: float | None
    candidates: tuple[Judgement, ...]
    note: str


@dataclass(frozen=True, kw_only=True)
class ImageLabels:
    """The labels of an image by the best model of a run. matching: strategy and thresholds, and whether the run itself
    refines no labels."""

    run: str
    method: str
    matching: str
    labels: tuple[ImageLabel, ...]


def image_refs(dataset: ReferDataset, image_id: int) -> list[Ref]:
    """The refs on an image that mean one object, as those do that training labels."""
    return [ref for ref in dataset.refs if ref.image_id == image_id and len(ref.ann_ids) == 1]


def label_image(
    run: Path,
    candidates: Candidates,
    path: Path | None,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    upright: bool = False,
    ref_id: int | None = None,
    expressions: Sequence[str] = (),
) -> tuple[ImageLabels, Path]:
    """Label an image as the run's teacher would: its refs in the run's data set, with their first expressions; only the
    one named by `ref_id`; or in place of refs the `expressions` typed. path: the image's file, None to find it in the
    data set; it is returned. upright: as in `candidates_page`; of own data it is.

    Refs that compete do so with all others of the image. InputError where there is no run, no such image or ref, or
    nothing to label.
    """
    dataset = None
    if not expressions or path is None:
        dataset = load_dataset(paths, RunFolder(run).read_config().split, on_progress)
        path = path or dataset.image_path(candidates.image_id)
    image = load_image(path, upright=upright or (dataset is not None and dataset.is_upright))
    check_image_size(candidates, image)
    folder = RunFolder(run)
    config, model = folder.load_model()
    own = own_refinement(config)
    chosen = (dataclasses.replace(own, match=None), own)
    size = model.image_size
    packed = torch.from_numpy(resize_nearest_packed(candidates.bits, width=candidates.width, size=size))
    refs: list[Ref] = []
    if expressions:
        parts = [_typed(model, image, text, number) for number, text in enumerate(expressions)]
    else:
        refs = [] if dataset is None else image_refs(dataset, candidates.image_id)
        _check_refs(refs, candidates.image_id, ref_id)
        assert dataset is not None
        samples = RefSamples(dataset, refs, model.tokenizer, size, text=config.text)
        (keys,) = whole_images(samples, most_expressions(chosen), len(refs))
        parts = [samples[tuple(key)] for key in keys.tolist()]
    batch = _with_candidates(collate(parts), packed).to(device)
    teacher = EmaTeacher(model.to(device))
    (labels, _), (refined, matched) = labels_of(batch, teacher, chosen, config.resolved(device).precision, device)
    assert matched is not None
    labeled_images = folder.read_labeled_images()
    found = [
        _image_label(
            ref=refs[number] if refs else None,
            expression=refs[number].texts(config.text)[0] if refs else expressions[number],
            labels=(labels[number].cpu(), refined[number].cpu()),
            truth=batch.masks[number].cpu() if batch.has_mask[number] else None,
            is_matched=bool(matched[number]),
            judged=judgements(packed, labels[number], own.match or config.match),
            labeled_images=labeled_images,
        )
        for number in range(len(parts))
        if ref_id is None or refs[number].ref_id == ref_id
    ]
    matching = match_name(config.match) + ("" if config.is_refined else " (the run itself refines no labels)")
    return ImageLabels(run=str(run), method=config.method, matching=matching, labels=tuple(found)), path


def _check_refs(refs: Sequence[Ref], image_id: int, ref_id: int | None) -> None:
    if not refs:
        raise InputError(f"expected refs on image {image_id}, found none; give what to look for with --expression")
    known = [ref.ref_id for ref in refs]
    if ref_id is not None and ref_id not in known:
        raise InputError(
            f"--ref: expected a ref of image {image_id}, found {ref_id}; it has {', '.join(map(str, known))}"
        )


def _typed(model: ResModel, image: NDArray[np.uint8], expression: str, number: int) -> Sample:
    """An expression that no ref has, on an image of its own, so that it competes with none."""
    if not expression.strip():
        raise InputError('--expression: expected words such as "left girl in red", found none')
    size = model.image_size
    input_ids, attention_mask = model.tokenizer([expression])
    return Sample(
        ref_id=number,
        image_id=number,
        ann_id=number,
        image=torch.from_numpy(resize_image(image, size)).permute(2, 0, 1).contiguous(),
        mask=torch.zeros(size, size, dtype=torch.bool),
        has_mask=False,
        input_ids=input_ids[0],
        attention_mask=attention_mask[0],
        other_input_ids=input_ids[1:],
        other_attention_mask=attention_mask[1:],
        candidates=torch.empty(0, (size**2 + 7) // 8, dtype=torch.uint8),
    )


def _with_candidates(batch: Batch, packed: Tensor) -> Batch:
    """The batch with the candidates, uint8 [M, P], for each of its samples."""
    return dataclasses.replace(
        batch, candidates=packed.repeat(len(batch), 1), offsets=torch.arange(len(batch) + 1) * len(packed)
    )


def _image_label(
    *,
    ref: Ref | None,
    expression: str,
    labels: tuple[Tensor, Tensor],
    truth: Tensor | None,
    is_matched: bool,
    judged: Sequence[Judgement],
    labeled_images: Collection[int],
) -> ImageLabel:
    label, refined = labels
    note = ""
    if ref is not None and ref.split != "train":
        note = f"a ref of {ref.split}, which no training labels"
    elif ref is not None and ref.has_mask and ref.image_id in labeled_images:
        note = "a labeled ref: the run learned from its mask, not from this label"
    return ImageLabel(
        ref_id=None if ref is None else ref.ref_id,
        expression=expression,
        label=label.numpy(),
        refined=refined.numpy(),
        truth=None if truth is None else truth.numpy(),
        is_matched=is_matched,
        iou_before=None if truth is None else iou(label, truth),
        iou_after=None if truth is None else iou(refined, truth),
        candidates=tuple(judged),
        note=note,
    )
