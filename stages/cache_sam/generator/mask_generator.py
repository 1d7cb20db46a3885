"""Candidate masks of images: SAM's automatic mask generator, batched, for any model that proposes masks at points.

    generator = MaskGenerator(proposer_of(sam), GeneratorSettings())
    candidates = generator.generate(image_id, image)

An image goes through a funnel: whole image -> crops -> embedding -> batches of point prompts -> masks whose predicted
IoU passes, upsampled -> masks that are stable, as bits -> NMS -> the host, in one copy.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.prompts import Crop, PromptGrid, Prompts, WordPrompts, crops_of
from semires.stages.cache_sam.generator.proposer import Embedding, Proposer, RefiningProposer, WordModel
from semires.stages.cache_sam.generator.selection import (
    Frame,
    joined,
    masks_at_once,
    pack,
    select,
    suppress,
    upsample,
)
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.generator.small_regions import without_small_regions
from semires.stages.cache_sam.generator.threads import BatchThreads
from semires.stages.data.errors import InputError
from semires.stages.processes.timing import PhaseTimer

PHASES = ("encode", "decode", "select", "pack")

# Bytes of one prompt batch's image tokens on CPU: far above it the decoder waits for fresh pages, far below it for
# Python; what fits a core's cache is its own business (two_way.py). The tiny SAM's 144 prompts make two batches.
_CPU_BYTES_OF_TOKENS = 36 * 2**17

# Large models have no two prompts in the cache; but fewer than so many are not worth reading the decoder's weights for.
_CPU_PROMPTS = 4

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """M masks on the device; boxes and points are in the crop's pixels up to its NMS, then in the image's."""

    bits: Tensor
    area: Tensor
    boxes_xyxy: Tensor
    iou: Tensor
    stability: Tensor
    points_xy: Tensor
    crop_area: Tensor

    def __getitem__(self, kept: Tensor) -> "_Found":
        return _Found(**{name: value[kept] for name, value in vars(self).items()})

    @staticmethod
    def joined(parts: list["_Found"]) -> "_Found":
        return _Found(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})


class MaskGenerator:
    """What `SamAutomaticMaskGenerator` makes of an image, as packed `Candidates`, faster.

    In float32 the candidates of a SAM, or of a SAM 2, are those of its own generator: the same set in the same order,
    scores within 1e-4, masks equal but for pixels whose logit is within rounding of the threshold. With a proposer that
    is `compiled` call `warm_up` before measuring. With `profile`,
    `timings` holds the milliseconds spent so far by phase: encode (resizing and the image encoder), decode (the
    transformer and the low-resolution logits), select (upsampling, thresholds, boxes, NMS), pack (bits and the copy
    to the host).

    A `WordModel` in place of a proposer is asked for the words that `words` has for an image's id. `beside` is another
    generator, of a model that reads the same embeddings: what it finds in an image comes behind what this one does, but
    for masks whose box this one has a mask of (`box_nms_thresh`).

    `settings.points_per_batch` bounds memory, on CPU that of each of torch's threads; out of memory on CUDA it is
    halved and stays so (`points_per_batch` tells). InputError where the settings need OpenCV and it is not installed,
    or a step that the model does not have.
    """

    def __init__(
        self,
        proposer: Proposer | WordModel,
        settings: GeneratorSettings,
        *,
        words: Mapping[int, Sequence[str]] | None = None,
        beside: "MaskGenerator | None" = None,
        profile: bool = False,
    ) -> None:
        if settings.min_mask_region_area > 0 and find_spec("cv2") is None:
            raise InputError(
                f"min_mask_region_area: expected OpenCV for {settings.min_mask_region_area}, found no module cv2; "
                "install opencv-python-headless or leave it at 0"
            )
        self._refiner: RefiningProposer | None = None
        if settings.use_m2m:
            if not isinstance(proposer, RefiningProposer):
                raise InputError("use_m2m: expected a SAM 2, which refines a mask by a second prompt, found another")
            self._refiner = proposer
        self.points_per_batch = settings.points_per_batch
        self._proposer = proposer
        self._settings = settings
        self._profile = profile
        self._timer = PhaseTimer(PHASES, proposer.device, enabled=profile)
        # What torch.compile makes has threads of its own.
        self._threads = BatchThreads(enabled=proposer.device.type == "cpu" and not proposer.compiled)
        self._prompts: PromptGrid | WordPrompts = (
            PromptGrid(proposer, settings) if isinstance(proposer, Proposer) else WordPrompts(proposer, words or {})
        )
        self._beside = beside
        self._encode: Callable[[Tensor], Embedding] = proposer.encode
        self._decode = proposer.decode
        if proposer.compiled:
            self._encode, self._decode = torch.compile(self._encode), torch.compile(self._decode)

    @property
    def precision(self) -> str:
        """In which precision the model computes: fp32, bf16 or fp16."""
        return self._proposer.precision

    @property
    def timings(self) -> dict[str, float]:
        """Milliseconds by phase over all images so far; zeros without `profile`."""
        return dict(self._timer.milliseconds)

    def warm_up(self, height: int, width: int) -> float:
        """Generate for a grey image of this size and forget it: the seconds, compilation included."""
        start = time.perf_counter()
        self.generate(0, np.full((height, width, 3), 127, dtype=np.uint8))
        self._timer.milliseconds.update(dict.fromkeys(self._timer.milliseconds, 0.0))
        return time.perf_counter() - start

    def generate(self, image_id: int, image: NDArray[np.uint8]) -> Candidates:
        """Candidates of one RGB image uint8 [H, W, 3], in SAM's order, at the image's own resolution."""
        return self.generate_batch([image_id], [image])[0]

    def generate_batch(self, image_ids: Sequence[int], images: Sequence[NDArray[np.uint8]]) -> list[Candidates]:
        """Candidates of several RGB images of any sizes; see `generate`.

        On CPU each torch thread has an image to itself (not with `profile`, whose phases are those of one image at a
        time); elsewhere the images are encoded together.
        """
        if not images:
            return []
        if not self._profile and self._threads.side_by_side(len(images)) > 1:
            return self._threads.map(lambda each: self.generate(*each), list(zip(image_ids, images, strict=True)))
        with torch.inference_mode():
            embeddings = self._encode_all(list(images))
            return [
                self._candidates(image_id, image, embedding)
                for image_id, image, embedding in zip(image_ids, images, embeddings, strict=True)
            ]

    def _encode_all(self, images: list[NDArray[np.uint8]]) -> list[Embedding]:
        """Each image's embedding; out of memory, of half of the images at a time."""

        def encode() -> list[Embedding]:
            with self._timer.phase("encode"):
                return list(zip(*self._encode(self._proposer.load(images)), strict=True))

        embeddings = _unless_out_of_memory(encode, may_fail=len(images) > 1)
        if embeddings is None:
            half = len(images) // 2
            embeddings = self._encode_all(images[:half]) + self._encode_all(images[half:])
        return embeddings

    def _candidates(self, image_id: int, image: NDArray[np.uint8], embedding: Embedding) -> Candidates:
        found = None
        while found is None:
            can_halve = self.points_per_batch > 1
            found = _unless_out_of_memory(lambda: self._search(image_id, image, embedding), may_fail=can_halve)
            if found is None:
                self.points_per_batch //= 2
        height, width = image.shape[:2]
        with self._timer.phase("pack"):
            bits, area, boxes_xyxy, iou, stability, points_xy = (
                getattr(found, name).cpu().numpy()
                for name in ("bits", "area", "boxes_xyxy", "iou", "stability", "points_xy")
            )
            boxes_xyxy[:, 2:] += 1  # SAM's boxes end at the last pixel, ours behind it
            boxes_xyxy[area == 0] = 0
            candidates = Candidates(
                image_id=int(image_id),
                height=height,
                width=width,
                bits=bits,
                area=area,
                boxes_xyxy=boxes_xyxy.astype(np.int32),
                predicted_iou=iou,
                stability_score=stability,
                points_xy=points_xy.astype(np.float32),
            )
        if self._settings.min_mask_region_area > 0 and candidates.num_masks > 0:
            with self._timer.phase("select"):
                candidates = without_small_regions(candidates, self._settings)
        if self._beside is None:
            return candidates
        return joined(candidates, self._beside._candidates(image_id, image, embedding), self._settings.box_nms_thresh)

    def _search(self, image_id: int, image: NDArray[np.uint8], embedding: Embedding) -> _Found:
        """All crops of an image; `embedding` is the whole image's, that of smaller crops is made here."""
        height, width = image.shape[:2]
        crops = crops_of(height, width, self._settings)
        parts = []
        for crop in crops:
            if crop.layer > 0:
                (embedding,) = self._encode_all([image[crop.y0 : crop.y1, crop.x0 : crop.x1]])
            parts.append(self._search_crop(image_id, crop, (height, width), embedding))
        found = _Found.joined(parts)
        if len(crops) > 1:
            with self._timer.phase("select"):  # prefers masks of smaller crops
                found = found[suppress(found.boxes_xyxy, 1 / found.crop_area, self._settings.crop_nms_thresh)]
        return found

    def _search_crop(self, image_id: int, crop: Crop, image_size: tuple[int, int], embedding: Embedding) -> _Found:
        proposer = self._proposer
        frame = Frame(
            crop=crop,
            image_size=image_size,
            input_size=proposer.input_size(*crop.size),
            padded_size=proposer.side,
            low_side=proposer.low_side,
            stretched=proposer.stretches,
        )
        with self._timer.phase("decode"):
            prompts = self._prompts_of(image_id, crop)
            shared = proposer.share(embedding)
        at_once = self._prompts_at_once()

        def search(start: int) -> tuple[list[_Found], PhaseTimer]:
            timer = PhaseTimer(PHASES, proposer.device, enabled=self._profile)
            return self._search_batch(shared, prompts[start : start + at_once], frame, at_once, timer), timer

        starts = range(0, len(prompts), at_once)
        parts = [self._nothing(image_size)]
        for found_in_batch, timer in self._threads.map(search, starts):
            parts.extend(found_in_batch)
            for name in PHASES:  # the image waits for its share of what was done side by side
                self._timer.milliseconds[name] += timer.milliseconds[name] / self._threads.side_by_side(len(starts))
        with self._timer.phase("select"):
            found = _Found.joined(parts)
            found = found[suppress(found.boxes_xyxy, found.iou, self._settings.box_nms_thresh)]
            corner = torch.tensor([crop.x0, crop.y0] * 2, device=proposer.device)
            return replace(found, boxes_xyxy=found.boxes_xyxy + corner, points_xy=found.points_xy + corner[:2])

    def _search_batch(
        self, shared: Any, prompts: Prompts, frame: Frame, at_once: int, timer: PhaseTimer
    ) -> list[_Found]:
        """Masks of one batch of prompts on one crop that pass all thresholds, in parts, before NMS."""
        with timer.phase("decode"):
            asked = prompts
            if self._proposer.compiled and len(prompts) < at_once:
                # Another shape would be compiled anew: repeat the last one.
                asked = prompts[torch.arange(at_once, device=self._proposer.device).clamp(max=len(prompts) - 1)]
            decoded = self._decode(shared, *asked.tokens)
            iou = decoded.iou[: len(prompts)]
            passes = self._passes(iou) if self._refiner is None else torch.ones_like(iou, dtype=torch.bool)
            which = passes.nonzero()
            # Up to its logits the batch waits for the device here alone: sizes from here on depend on what passed.
            which_cpu = which.cpu()
            if len(which) == 0:
                return []
            prompt, mask = which.unbind(1)
            iou = iou[prompt, mask]
            logits = self._proposer.logits(shared, decoded, which_cpu, frame.low_size)
            if self._refiner is not None:
                iou, logits = self._refined(self._refiner, shared, logits, prompts[prompt])
                kept = self._passes(iou).nonzero()[:, 0]
                iou, logits, prompt = iou[kept], logits[kept], prompt[kept]
        found = []
        num_masks = masks_at_once(frame, logits.device)
        for start in range(0, len(logits), num_masks):
            with timer.phase("select"):
                upsampled = upsample(logits[start : start + num_masks], frame)
                chosen = select(upsampled, frame, self._settings, self._proposer.mask_threshold)
                kept = chosen.kept + start
            with timer.phase("pack"):
                bits = pack(chosen.masks, frame)
            found.append(
                _Found(
                    bits=bits,
                    area=chosen.area,
                    boxes_xyxy=chosen.boxes_xyxy,
                    iou=iou[kept],
                    stability=chosen.stability,
                    points_xy=prompts.points_xy[prompt[kept]],
                    crop_area=torch.full_like(chosen.area, frame.crop.size[0] * frame.crop.size[1]),
                )
            )
        return found

    def _prompts_of(self, image_id: int, crop: Crop) -> Prompts:
        if isinstance(self._prompts, WordPrompts):
            return self._prompts.of_image(image_id)
        return self._prompts.of_crop(crop.size, crop.layer)

    def _passes(self, iou: Tensor) -> Tensor:
        """Whether predicted IoUs are high enough; NaN passes no threshold but 0, which is not compared with."""
        threshold = self._settings.pred_iou_thresh
        return iou > threshold if threshold > 0 else torch.ones_like(iou, dtype=torch.bool)

    def _refined(
        self, refiner: RefiningProposer, shared: Any, logits: Tensor, prompts: Prompts
    ) -> tuple[Tensor, Tensor]:
        """What the model makes of its own masks, in batches: predicted IoU [K], and logits like the K given."""
        at_once = self._prompts_at_once()
        batches = [slice(start, start + at_once) for start in range(0, len(logits), at_once)]
        parts = [refiner.refine(shared, logits[some], *prompts[some].tokens) for some in batches]
        ious, refined = zip(*parts, strict=True)
        return torch.cat(ious), torch.cat(refined)

    def _prompts_at_once(self) -> int:
        if self._proposer.device.type != "cpu":
            return self.points_per_batch
        return min(self.points_per_batch, max(_CPU_PROMPTS, _CPU_BYTES_OF_TOKENS // self._proposer.bytes_a_prompt))

    def _nothing(self, image_size: tuple[int, int]) -> _Found:
        """No mask, in the shapes and types of some; every list of parts begins with it."""
        height, width = image_size
        device = self._proposer.device
        return _Found(
            bits=torch.empty((0, height, -(-width // 8)), dtype=torch.uint8, device=device),
            area=torch.empty(0, dtype=torch.int32, device=device),
            boxes_xyxy=torch.empty((0, 4), dtype=torch.int64, device=device),
            iou=torch.empty(0, device=device),
            stability=torch.empty(0, device=device),
            points_xy=torch.empty((0, 2), dtype=torch.float64, device=device),
            crop_area=torch.empty(0, dtype=torch.int32, device=device),
        )


def _unless_out_of_memory(work: Callable[[], _T], *, may_fail: bool) -> _T | None:
    """What `work` returns, or None where the device ran out of memory in it and `may_fail`."""
    try:
        return work()
    except torch.OutOfMemoryError:
        if not may_fail:
            raise
    # Outside of the handler: inside, the error's traceback still holds what the work had allocated.
    torch.cuda.empty_cache()
    return None
