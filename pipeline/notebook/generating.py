"""Candidate masks of one picture at a time."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch

from semires.cache.candidates import Candidates
from semires.pipeline.predicting.predictor import Picture, pixels_of
from semires.pipeline.running.stage_runs import choose_device
from semires.stages.cache_sam.generator import mask_generator
from semires.stages.cache_sam.models.proposers import proposer_of
from semires.stages.cache_sam.models.sam import load_sam


class MaskGenerator(mask_generator.MaskGenerator):
    """SAM's automatic masks of a picture, as `semires cache-sam` makes them: the candidates that labels are matched
    with.

    >>> import semires
    >>> generator = semires.MaskGenerator.from_pretrained("tiny", points_per_side=8)
    >>> candidates = generator("data/refshapes/images/val_000000.png")
    >>> candidates.masks().shape == (candidates.num_masks, 96, 128)
    True
    >>> candidates.predicted_iou.dtype, candidates.boxes_xyxy.shape[1]
    (dtype('float32'), 4)

    `generate` and `generate_batch` take RGB arrays alone, with the ids that a store knows them by.
    """

    @classmethod
    def from_pretrained(
        cls,
        name: str = "tiny",
        checkpoint: str | Path | None = None,
        *,
        device: str | torch.device | None = None,
        precision: str | None = None,
        **settings: Any,
    ) -> Self:
        """A generator with a SAM, its weights and the settings that were published for it.

        name: as of `semires cache-sam --sam`: tiny (shipped; trained on RefShapes), vit_h, vit_l or vit_b with their
        `checkpoint` file, a folder or hub name of a SAM, SAM-HQ, SAM 2, EdgeTAM or SAM 3 of transformers, or
        PACKAGE.MODULE:FACTORY. device: None for CUDA where there is one, else the CPU. precision: fp32, bf16 or fp16;
        None for bf16 on CUDA, else fp32. settings: fields of `GeneratorSettings`, such as points_per_side=16.

        InputError for what `semires cache-sam` refuses.
        """
        chosen = choose_device(None if device is None else str(device))
        loaded = load_sam(name, None if checkpoint is None else Path(checkpoint), chosen)
        return cls(proposer_of(loaded.sam, precision), replace(loaded.settings.on(chosen), **settings))

    def __call__(self, image: Picture) -> Candidates:
        """The candidates of a picture at its own resolution, in SAM's order, under image id 0.

        image: a path, an image of Pillow's, or RGB as uint8 [H, W, 3]. InputError where it is none.
        """
        return self.generate(0, pixels_of(image))
