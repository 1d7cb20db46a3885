"""What `semires bench step` trains on, written twice: as semires reads it, and as the public code does.

    <folder>/images/<image id>.png or .jpg
    <folder>/candidates.zarr                the store, with its view at the training size
    <folder>/masks/<ref id>.npy             a ref's mask, uint8 [H, W]
    <folder>/sam_rle_mask/<ref id>.json     the candidates of its image as JSON run lengths

RefShapes scenes for LAVT-nano, whose candidates are the outlines of objects and parts; else smooth random photographs
of COCO's size with a hundred masks each.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

from semires.cache.candidates import Candidates
from semires.cache.views import CandidateView, build_view
from semires.cache.writer import StoreWriter
from semires.pipeline.bench.inputs.coco_shapes import coco_masks
from semires.pipeline.bench.inputs.manifest import bench_manifest
from semires.pipeline.bench.inputs.mask_files import RunLengthJson
from semires.stages.data.instances import ImageRecord
from semires.stages.data.masks import Segmentation, parse_segmentation
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.data.splits import SPLITS
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.reading.samples import RefSamples
from semires.stages.train.train_data import TrainData

NUM_SCENES = 48
NUM_PHOTOGRAPHS = 12
NUM_CANDIDATES = 100  # of a photograph
REFS_PER_IMAGE = 3
LABELED_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Picture:
    """image: uint8 [H, W, 3]. candidates: bool [M, H, W]. referents: bool [R, H, W], a text for each."""

    image: NDArray[np.uint8]
    candidates: NDArray[np.bool_]
    referents: NDArray[np.bool_]
    texts: list[str]


@dataclass(frozen=True, kw_only=True)
class StepData:
    """The refs, labeled and unlabeled, and the files that they lie in; `run_lengths` are candidates by ref id."""

    dataset: ReferDataset
    labeled: list[Ref]
    unlabeled: list[Ref]
    folder: Path
    run_lengths: RunLengthJson
    num_candidates: float
    """Of an image, in the mean."""
    is_small: bool
    """Whether they are scenes of RefShapes, which training keeps in memory."""

    def samples(self, tokenizer: Tokenizer, size: int) -> TrainData:
        """As `semires train` reads them: scenes are in memory already, photographs are read anew each time."""
        view = CandidateView(self.folder / "candidates.zarr", size)
        labeled = RefSamples(self.dataset, self.labeled, tokenizer, size)
        unlabeled = RefSamples(self.dataset, self.unlabeled, tokenizer, size, view)
        for samples in (labeled, unlabeled):
            samples.keeps = self.is_small
            if samples.keeps:
                for index in range(len(samples)):
                    samples[index, 0]
        return TrainData(labeled=labeled, unlabeled=unlabeled, val=labeled)


def write_step_data(folder: Path, size: int, *, is_small: bool) -> StepData:
    """Write everything below `folder`, the view at `size`; the same for the same arguments."""
    pictures = list(_scenes() if is_small else _photographs())
    height, width = pictures[0].image.shape[:2]
    for name in ("images", "masks", "sam_rle_mask"):
        (folder / name).mkdir()
    run_lengths = RunLengthJson(folder / "sam_rle_mask", height, width)
    images: dict[int, ImageRecord] = {}
    segmentations: dict[int, Segmentation] = {}
    refs: list[Ref] = []
    with StoreWriter(folder / "candidates.zarr", bench_manifest()) as writer:
        for image_id, picture in enumerate(pictures, start=1):
            images[image_id] = ImageRecord(f"{image_id}.{'png' if is_small else 'jpg'}", height, width)
            Image.fromarray(picture.image).save(folder / "images" / images[image_id].file_name)
            ones = np.ones(len(picture.candidates))
            points = np.zeros((len(picture.candidates), 2))
            writer.add(Candidates.from_masks(image_id, picture.candidates, ones, ones, points))
            for mask, text in zip(picture.referents, picture.texts, strict=True):
                ref_id = len(refs) + 1
                counts = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode("ascii")
                parsed = parse_segmentation({"size": [height, width], "counts": counts}, height, width)
                assert parsed is not None
                segmentations[ref_id] = parsed
                np.save(folder / "masks" / f"{ref_id}.npy", mask.astype(np.uint8))
                run_lengths.write(ref_id, picture.candidates)
                refs.append(
                    Ref(
                        ref_id=ref_id,
                        image_id=image_id,
                        ann_id=ref_id,
                        category_id=1,
                        split="train",
                        expressions=(text,),
                        raw_expressions=(text,),
                    )
                )
    build_view(folder / "candidates.zarr", size)
    spec = SPLITS["refshapes" if is_small else "refcoco"]
    dataset = ReferDataset(spec, tuple(refs), ReferProblems(), folder / "images", images, segmentations, {})
    last_labeled = int(LABELED_SHARE * len(pictures))
    return StepData(
        dataset=dataset,
        labeled=[ref for ref in refs if ref.image_id <= last_labeled],
        unlabeled=[ref for ref in refs if ref.image_id > last_labeled],
        folder=folder,
        run_lengths=run_lengths,
        num_candidates=statistics.mean(len(picture.candidates) for picture in pictures),
        is_small=is_small,
    )


def _scenes() -> Iterator[Picture]:
    for index in range(NUM_SCENES):
        scene = make_scene("train", 0, index)
        is_part = np.bincount(scene.part_owner)[scene.part_owner] > 1  # else it is the whole object
        referents = scene.object_masks[:REFS_PER_IMAGE]
        yield Picture(
            image=scene.image,
            candidates=np.concatenate([scene.object_masks, scene.part_masks[is_part]]),
            referents=referents,
            texts=[f"{thing.size} {thing.color} {thing.category}" for thing in scene.objects[: len(referents)]],
        )


def _photographs() -> Iterator[Picture]:
    height, width = 480, 640
    for index in range(NUM_PHOTOGRAPHS):
        random = np.random.default_rng(index)
        coarse = Image.fromarray(random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8))
        masks = coco_masks(index, num_masks=NUM_CANDIDATES, height=height, width=width)
        yield Picture(
            image=np.array(coarse.resize((width, height), Image.Resampling.BICUBIC)),
            candidates=masks,
            referents=masks[:REFS_PER_IMAGE],
            texts=["the man in a red shirt", "woman on the left", "second chair from the right"],
        )
