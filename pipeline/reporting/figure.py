"""The picture of what refinement does: image, candidates, teacher label, refined label, truth, a ref a row."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from semires.cache.views import CandidateView
from semires.pipeline.datasets import load_dataset, require_whole
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.reporting.contact_sheet import all_colored, resized_masks
from semires.pipeline.running.stage_runs import prepare_candidates
from semires.pipeline.wording import counted
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

    The teacher is the run's best model; matching is the run's. Refs whose masks are known come first; where no mask is,
    rows have no truth, and are spread over how much of the label changed. InputError where no label of those matched.
    """
    config, model = RunFolder(run).load_model()
    size = model.image_size
    dataset = load_dataset(paths, config.split, on_progress)
    require_whole(dataset, paths, ("train",))
    store = store or paths.store(config.split)
    prepare_candidates(paths, dataset, size, store, on_progress)
    labeled = set(RunFolder(run).read_labeled_images())
    unlabeled = [ref for ref in dataset.refs_of("train") if ref.image_id not in labeled or not ref.has_mask]
    refs = ([ref for ref in unlabeled if ref.has_mask] or unlabeled)[:NUM_LOOKED_AT]
    samples = RefSamples(dataset, refs, model.tokenizer, size, CandidateView(store, size), text=config.text)
    changed = _changed_labels(samples, EmaTeacher(model.to(device)), config.match, device)
    if not changed:
        raise InputError(f"none of the first {len(refs)} pseudo-labels of {run} was changed: train it longer")
    # From the largest gain to the largest loss: a picture of the best alone would be a lie.
    changed.sort(key=lambda row: row.place)
    count = min(num_examples, len(changed))
    chosen = [changed[round(n * (len(changed) - 1) / max(count - 1, 1))] for n in range(count)]

    headings = HEADINGS if refs[0].has_mask else HEADINGS[:-1]
    height = TEXT + len(chosen) * (TILE + TEXT + MARGIN)
    canvas = Image.new("RGB", (len(headings) * (TILE + MARGIN) - MARGIN, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, heading in enumerate(headings):
        draw.text((column * (TILE + MARGIN), 1), heading, fill="black", font=font)
    for number, row in enumerate(chosen):
        ref = refs[row.index]
        image = resize_image(dataset.image(ref.image_id), TILE)
        masks = [row.label, row.refined] + ([] if row.truth is None else [row.truth])
        tiles = [
            Image.fromarray(image),
            all_colored(image, unpack_bits(row.candidates, size).numpy()),
            *(overlay(image, mask) for mask in _tile_sized(torch.stack(masks).numpy())),
        ]
        captions = [f'"{ref.texts(config.text)[0]}"', counted(len(row.candidates), "mask"), *row.captions]
        top = TEXT + number * (TILE + TEXT + MARGIN)
        for column, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
            canvas.paste(tile, (column * (TILE + MARGIN), top))
            draw.text((column * (TILE + MARGIN), top + TILE + 1), caption, fill="black", font=font)
    return canvas


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A ref whose label refinement changed: masks bool [S, S], candidates uint8 [M, P], all on the CPU; the truth where
    it is known. place: what rows are ordered by; captions: what is written below the masks."""

    index: int
    candidates: Tensor
    label: Tensor
    refined: Tensor
    truth: Tensor | None
    place: float
    captions: tuple[str, ...]


def _changed_labels(samples: RefSamples, teacher: EmaTeacher, config: MatchConfig, device: torch.device) -> list[_Row]:
    """The refs of `samples` (their first expressions) whose IoU with the truth refinement changes, in order; of those
    without a truth, whose label it changes."""
    keys = [(index, 0) for index in range(len(samples))]
    batches = [keys[start : start + BATCH_SIZE] for start in range(0, len(keys), BATCH_SIZE)]
    rows = []
    for indices, loaded in zip(batches, load_batches(samples, batches, num_workers=0), strict=True):
        batch = loaded.to(device)
        label, _ = teacher.pseudo_label(normalize(batch.images.float() / 255), batch.input_ids, batch.attention_mask)
        found = match(batch.candidates, batch.offsets, label, config)
        before, after, kept = (
            ious_from_counts((one & other).sum(dim=(1, 2)), (one | other).sum(dim=(1, 2)))
            for one, other in ((label, batch.masks), (found.refined, batch.masks), (label, found.refined))
        )
        is_changed = torch.where(batch.has_mask, after != before, kept < 1)
        for n in torch.nonzero(found.matched & is_changed).flatten().tolist():
            low, high = batch.offsets[n : n + 2].tolist()
            is_known = bool(batch.has_mask[n])
            rows.append(
                _Row(
                    index=indices[n][0],
                    candidates=batch.candidates[low:high].cpu(),
                    label=label[n].cpu(),
                    refined=found.refined[n].cpu(),
                    truth=batch.masks[n].cpu() if is_known else None,
                    place=float(before[n] - after[n]) if is_known else float(kept[n]),
                    captions=(f"IoU {before[n]:.2f}", f"IoU {after[n]:.2f}", "")
                    if is_known
                    else ("", f"IoU {kept[n]:.2f} with the label"),
                )
            )
    return rows


def _tile_sized(masks: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return resized_masks(masks, (TILE, TILE))
