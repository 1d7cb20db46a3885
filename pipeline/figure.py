"""The picture of what refinement does: image, candidates, teacher label, refined label, truth, a ref a row."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from semires.cache.views import CandidateView
from semires.pipeline.paths import Paths
from semires.pipeline.progress import OnProgress
from semires.pipeline.stage_runs import load_dataset, prepare_candidates
from semires.stages.data.errors import InputError
from semires.stages.data.images import resize_image
from semires.stages.train.matching import match, unpack_bits
from semires.stages.train.metrics import ious_from_counts
from semires.stages.train.prediction import overlay
from semires.stages.train.run_folder import RunFolder
from semires.stages.train.samples import RefSamples, load_batches
from semires.stages.train.teacher import EmaTeacher
from semires.stages.train.views import normalize

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
    store: Path | None = None,
) -> Image.Image:
    """Rows for `num_examples` unlabeled train refs, spread over the gains in IoU among the first 256 that matched.

    The teacher is the run's best model; matching is the run's. InputError where no label of those matched.
    """
    config, model, tokenizer = RunFolder(run).load_model()
    size = model.config.image_size
    dataset = load_dataset(paths, config.split, on_progress)
    store = store or paths.store(config.split)
    prepare_candidates(paths, dataset, size, store, on_progress)
    labeled = set(RunFolder(run).read_labeled_images())
    refs = [ref for ref in dataset.refs_of("train") if ref.image_id not in labeled][:NUM_LOOKED_AT]
    samples = RefSamples(dataset, refs, tokenizer, size, CandidateView(store, size))
    batch = next(load_batches(samples, [[(index, 0) for index in range(len(refs))]], num_workers=0)).to(device)
    label, _ = EmaTeacher(model.to(device)).pseudo_label(
        normalize(batch.images.float() / 255), batch.input_ids, batch.attention_mask
    )
    found = match(batch.candidates, batch.offsets, label, config.match)
    before, after = (
        ious_from_counts((masks & batch.masks).sum(dim=(1, 2)), (masks | batch.masks).sum(dim=(1, 2)))
        for masks in (label, found.refined)
    )
    rows = torch.nonzero(found.matched & (after != before)).flatten().tolist()
    if not rows:
        raise InputError(f"none of the first {len(refs)} pseudo-labels of {run} was changed: train it longer")
    # From the largest gain to the largest loss: a picture of the best alone would be a lie.
    rows.sort(key=lambda row: float(before[row] - after[row]))
    chosen = [rows[round(n * (len(rows) - 1) / max(num_examples - 1, 1))] for n in range(min(num_examples, len(rows)))]

    height = TEXT + len(chosen) * (TILE + TEXT + MARGIN)
    canvas = Image.new("RGB", (len(HEADINGS) * (TILE + MARGIN) - MARGIN, height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(14)
    for column, heading in enumerate(HEADINGS):
        draw.text((column * (TILE + MARGIN), 1), heading, fill="black", font=font)
    for number, row in enumerate(chosen):
        image = resize_image(dataset.image(refs[row].image_id), TILE)
        low, high = batch.offsets[row : row + 2].tolist()
        candidates = unpack_bits(batch.candidates[low:high], size).cpu().numpy()
        tiles = [
            Image.fromarray(image),
            _coloured(image, candidates),
            *(overlay(image, _enlarged(m[row].cpu().numpy())) for m in (label, found.refined, batch.masks)),
        ]
        captions = (
            f'"{refs[row].expressions[0]}"',
            f"{high - low} masks",
            f"IoU {before[row]:.2f}",
            f"IoU {after[row]:.2f}",
            "",
        )
        top = TEXT + number * (TILE + TEXT + MARGIN)
        for column, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
            canvas.paste(tile, (column * (TILE + MARGIN), top))
            draw.text((column * (TILE + MARGIN), top + TILE + 1), caption, fill="black", font=font)
    return canvas


def _enlarged(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    return np.array(Image.fromarray(mask).resize((TILE, TILE), Image.Resampling.NEAREST), dtype=bool)


def _coloured(image: NDArray[np.uint8], masks: NDArray[np.bool_]) -> Image.Image:
    """Every mask in a colour of its own over the dimmed image, the largest first, so that parts stay visible."""
    picture = image.astype(np.float32) * 0.35
    order = np.argsort(-masks.sum(axis=(1, 2)), kind="stable")
    for number, index in enumerate(order):
        # Hues a golden section apart: neighbours in the order never look alike.
        hue = Image.new("HSV", (1, 1), (int(number * 0.618034 * 256) % 256, 190, 255)).convert("RGB")
        picture[_enlarged(masks[index])] = np.array(hue.getpixel((0, 0)), dtype=np.float32)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))
