"""Snapping: a predicted mask replaced by the candidates that it matches, as the method refines its pseudo-labels.

Where the candidates come from: a store, in which the image is found by its content, else by its name; or a SAM that is
asked now.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.reader import CandidateStore
from semires.pipeline.store_images import parse_image_id
from semires.stages.cache_sam.loading import LoadedImage
from semires.stages.data.errors import InputError
from semires.stages.train.matching.config import MatchConfig
from semires.stages.train.matching.oblong import match_oblong

CandidatesOf = Callable[[LoadedImage], Candidates | None]
"""Gives the candidates of an image; None where there are none to be had."""


def snap(mask: NDArray[np.bool_], candidates: Candidates, config: MatchConfig) -> NDArray[np.bool_] | None:
    """The mask, bool [H, W], that the candidates of its image make of it (IOM or CPI, stages/train/matching), at the
    image's own size; None where none matches. InputError for candidates of another size.
    """
    height, width = mask.shape
    if (candidates.height, candidates.width) != (height, width):
        raise InputError(
            f"expected candidates of {height} x {width} pixels (height x width), found {candidates.height} x "
            f"{candidates.width}: give the store of these images, upright"
        )
    if not candidates.num_masks:
        return None
    result = match_oblong(
        torch.from_numpy(candidates.flat_bits()), torch.from_numpy(np.ascontiguousarray(mask)), config
    )
    return result.refined[0].numpy() if bool(result.matched[0]) else None


def candidates_in(store: CandidateStore) -> CandidatesOf:
    """From a store: the image whose file had the same bytes; of those whose files it knows nothing of, the one that was
    cached under this name and has this size."""
    by_content, unrecorded = dict[str, int](), set[int]()
    for image_id in store.image_ids.tolist():
        record = store.file(image_id)
        if record is None:
            unrecorded.add(image_id)
        else:
            by_content[record.sha256] = image_id

    def find(image: LoadedImage) -> Candidates | None:
        image_id = None if image.record is None else by_content.get(image.record.sha256)
        if image_id is None:
            try:
                image_id = parse_image_id(str(image.source.path), None, unrecorded)
            except InputError:
                return None
            if image_id not in unrecorded:
                return None
        # Another size is another picture, or this one as it is stored, not upright.
        is_of_it = image.pixels is not None and store.size(image_id) == image.pixels.shape[:2]
        return store[image_id] if is_of_it else None

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
