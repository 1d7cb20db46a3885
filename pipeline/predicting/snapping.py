"""Snapping: a predicted mask replaced by the candidates that it matches, as the method refines its pseudo-labels.

Where the candidates come from: a store, in which the image is found by its content, else by its name; or a SAM that is
asked now. Axes: H, W an image's sides, S side of a square of as many pixels.
"""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semires.cache.bits import pack_flat, unpack_rows
from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.pipeline.store_images import parse_image_id
from semires.stages.cache_sam.loading import LoadedImage
from semires.stages.data.errors import InputError
from semires.stages.train.matching.config import MatchConfig
from semires.stages.train.matching.dispatch import match

CandidatesOf = Callable[[LoadedImage], Candidates | None]
"""Gives the candidates of an image; None where there are none to be had."""


def snap(mask: NDArray[np.bool_], candidates: Candidates, config: MatchConfig) -> NDArray[np.bool_] | None:
    """The mask, bool [H, W], that the candidates of its image make of it (IOM or CPI, stages/train/matching), at the
    image's own size; None where none matches. InputError for candidates of another size.

    Matching counts pixels, wherever they lie: the image's are laid into a square, and what is left of it is empty.
    """
    height, width = mask.shape
    if (candidates.height, candidates.width) != (height, width):
        raise InputError(
            f"expected candidates of {height} x {width} pixels (height x width), found {candidates.height} x "
            f"{candidates.width}: give the store of these images, upright"
        )
    if not candidates.num_masks:
        return None
    size = math.isqrt(height * width - 1) + 1
    packed = np.zeros((candidates.num_masks, -(-size * size // 8)), np.uint8)
    for row, bits in zip(packed, candidates.bits, strict=True):  # one by one: unpacked, they are eight times as large
        flat = pack_flat(unpack_rows(bits[None], width=width))[0]
        row[: len(flat)] = flat
    label = np.zeros(size * size, np.bool_)
    label[: height * width] = mask.reshape(-1)
    result = match(
        torch.from_numpy(packed),
        torch.tensor([0, len(packed)]),
        torch.from_numpy(label.reshape(1, size, size)),
        config,
    )
    if not bool(result.matched[0]):
        return None
    refined: NDArray[np.bool_] = result.refined[0].numpy().reshape(-1)[: height * width].reshape(height, width)
    return refined


def candidates_in(store: CandidateStore) -> CandidatesOf:
    """From a store: the image whose file had the same bytes, else the one that was cached under this name."""
    ids = store.image_ids.tolist()
    records = ((image_id, store.file(image_id)) for image_id in ids)
    by_content = {record.sha256: image_id for image_id, record in records if record is not None}
    held = frozenset(ids)

    def find(image: LoadedImage) -> Candidates | None:
        image_id = None if image.record is None else by_content.get(image.record.sha256)
        if image_id is None:
            try:
                image_id = parse_image_id(str(image.source.path), None, held)
            except InputError:
                return None
        found = store[image_id] if image_id in held else None
        if found is not None and image.pixels is not None:
            is_same_size = (found.height, found.width) == image.pixels.shape[:2]
            return found if is_same_size else None
        return found

    return find


def candidates_of_sam(name: str, checkpoint: Path | None, device: torch.device) -> CandidatesOf:
    """From a SAM: `sam_candidates` of each image."""
    propose = sam_candidates(name, checkpoint, device)
    return lambda image: None if image.pixels is None else propose(image.pixels)


def sam_candidates(
    name: str, checkpoint: Path | None, device: torch.device
) -> Callable[[NDArray[np.uint8]], Candidates]:
    """What gives the candidates of an RGB image uint8 [H, W, 3]: a SAM, as `semires cache-sam --sam` takes it, with its
    published settings; loaded here."""
    from semires.stages.cache_sam.generator.mask_generator import MaskGenerator
    from semires.stages.cache_sam.models.proposers import proposer_of
    from semires.stages.cache_sam.models.sam import load_sam

    loaded = load_sam(name, checkpoint, device)
    generator = MaskGenerator(proposer_of(loaded.sam), loaded.settings.on(device))
    return lambda pixels: generator.generate(0, pixels)
