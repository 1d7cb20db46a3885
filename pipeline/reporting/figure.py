"""The picture of what refinement does: image, candidates, teacher label, refined label, truth, a ref a row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semires.cache.views import CandidateView
from semires.pipeline.datasets import require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.contact_sheet import colored, largest_first, resized_masks
from semires.pipeline.stage_runs import load_dataset, prepare_candidates
from semires.stages.data.errors import InputError
from semires.stages.data.images import resize_image
from semires.stages.train.evaluation import BATCH_SIZE
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.matching import MatchConfig, match, unpack_bits
from semires.stages.train.metrics import ious_from_counts
from semires.stages.train.models.normalization import normalize
from semires.stages.train.prediction import overlay
from semires.stages.train.reading.loading import load_batches
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.run_folder import RunFolder

HEADINGS = ("image", "SAM's candidates", "teacher's label", "refined label", "truth (hidden)")
TILE = 192  # pixels a side
MARGIN = 6
TEXT = 20
# Refs looked through for rows worth showing.
NUM_LOOKED_AT = 256


def refinement_figure(
    run: Path,
    paths: Paths,
    device: torch.device,
    on_progress: OnProgress,
    *,
    num_examples: int = 4,
    store: str | Path | None = None,
) -> Image.Image:
    """Rows for `num_examples` unlabeled train refs, spread over the gains in IoU among the first 256 that matched.

    The teacher is the run's best model; matching is the run's. InputError where no label of those matched.
    """
    config, model = RunFolder(run).load_model()
    size = model.image_size
    dataset = load_dataset(paths, config.split, on_progress)
    require_whole(dataset, paths, ("train",))
    store = store or paths.store(config.split)
    prepare_candidates(paths, dataset, size, store, on_progress)
    labeled = set(RunFolder(run).read_labeled_images())
    refs = [ref for ref in dataset.refs_of("train") if ref.image_id not in labeled][:NUM_LOOKED_AT]
    samples = RefSamples(dataset, refs, model.tokenizer, size, CandidateView(store, size), text=config.text)
    changed = _changed_labels(samples, EmaTeacher(model.to(device)), config.match, device)
    if not changed:
        raise InputError(f"none of the first {len(refs)} pseudo-labels of {run} was changed: train it longer")
    # From the largest gain to the largest loss: a picture of the best alone would be a lie.
    changed.sort(key=lambda row: row.iou_before - row.iou_after)
    count = min(num_examples, len(changed))
    chosen = [changed[round(n * (len(changed) - 1) / max(count - 1, 1))] for n in range(count)]

    height = TEXT + len(chosen) * (TILE + TEXT + MARGIN)
    canvas = Image.new("RGB", (len(HEADINGS) * (TILE + MARGIN) - MARGIN, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, heading in enumerate(HEADINGS):
        draw.text((column * (TILE + MARGIN), 1), heading, fill="black", font=font)
    for number, row in enumerate(chosen):
        ref = refs[row.index]
        image = resize_image(dataset.image(ref.image_id), TILE)
        tiles = [
            Image.fromarray(image),
            _all_masks(image, unpack_bits(row.candidates, size).numpy()),
            *(overlay(image, mask) for mask in _tile_sized(torch.stack([row.label, row.refined, row.truth]).numpy())),
        ]
        captions = (
            f'"{ref.texts(config.text)[0]}"',
            f"{len(row.candidates)} masks",
            f"IoU {row.iou_before:.2f}",
            f"IoU {row.iou_after:.2f}",
            "",
        )
        top = TEXT + number * (TILE + TEXT + MARGIN)
        for column, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
            canvas.paste(tile, (column * (TILE + MARGIN), top))
            draw.text((column * (TILE + MARGIN), top + TILE + 1), caption, fill="black", font=font)
    return canvas


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A ref whose label refinement changed: masks bool [S, S], candidates uint8 [M, P], all on the CPU."""

    index: int
    candidates: Tensor
    label: Tensor
    refined: Tensor
    truth: Tensor
    iou_before: float
    iou_after: float


def _changed_labels(samples: RefSamples, teacher: EmaTeacher, config: MatchConfig, device: torch.device) -> list[_Row]:
    """The refs of `samples` (their first expressions) whose IoU with the truth refinement changes, in order."""
    keys = [(index, 0) for index in range(len(samples))]
    batches = [keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE)]
    rows = []
    for indices, loaded in zip(batches, load_batches(samples, batches, num_workers=0), strict=True):
        batch = loaded.to(device)
        label, _ = teacher.pseudo_label(normalize(batch.images.float() / 255), batch.input_ids, batch.attention_mask)
        found = match(batch.candidates, batch.offsets, label, config)
        before, after = (
            ious_from_counts((masks & batch.masks).sum(dim=(1, 2)), (masks | batch.masks).sum(dim=(1, 2)))
            for masks in (label, found.refined)
        )
        for n in torch.nonzero(found.matched & (after != before)).flatten().tolist():
            low, high = batch.offsets[n : n + 2].tolist()
            rows.append(
                _Row(
                    index=indices[n][0],
                    candidates=batch.candidates[low:high].cpu(),
                    label=label[n].cpu(),
                    refined=found.refined[n].cpu(),
                    truth=batch.masks[n].cpu(),
                    iou_before=float(before[n]),
                    iou_after=float(after[n]),
                )
            )
    return rows


def _all_masks(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Image.Image:
    return colored(image, _tile_sized(masks[largest_first(masks.sum(axis=(1, 2)))]))


def _tile_sized(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return resized_masks(masks, (TILE, TILE))
