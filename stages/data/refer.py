"""Referring-expression data sets as lichengunc/refer lays them out on disk.

    <root>/<folder>/refs(<by>).p       the refs: which annotation, which split, which expressions (pickles.py)
    <root>/<folder>/instances.json     COCO's format: images, annotations with masks, categories
    <image folder>/<file_name>         the images under COCO's names

`ReferDataset.load` keeps what the refs of one data set need. Single refs that cannot be used are dropped, counted and
named; files that contradict the format are an `InputError`.
"""

import os
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from semires.stages.data.errors import InputError
from semires.stages.data.files.garbage import paused_garbage_collection
from semires.stages.data.files.pickles import load_refs_pickle
from semires.stages.data.images import load_image_of_size
from semires.stages.data.instances import ImageRecord, Instances, field_of, read_instances
from semires.stages.data.masks import Segmentation, decode_segmentation, unite_segmentations
from semires.stages.data.problems import ReferProblems, splits_of
from semires.stages.data.splits import SplitSpec, spec_of

Text = Literal["raw", "sent"]
"""Which of the two texts of a sentence in REFER's files: as people typed it, or with mild processing."""

NO_TARGET = -1
"""The annotation of a ref whose expressions mean nothing that is on the image, as gRefCOCO writes it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ref:
    """One referent (an annotated object of an image) with the expressions people gave for it.

    Of gRefCOCO also several objects together, or none.
    """

    ref_id: int
    image_id: int
    ann_id: int
    """The annotation; of several the first, of none `NO_TARGET`."""
    category_id: int
    split: str
    """`train` or one of the evaluation splits."""
    expressions: tuple[str, ...]
    """`sent` of each sentence, which REFER made of `raw` (lower case, spelling, ...); at least one, none empty, in file
    order."""
    raw_expressions: tuple[str, ...]
    """`raw` of the same sentences, as people typed them; as many, none empty."""
    has_mask: bool = True
    """Whether its mask is known; only of train refs of own data it may not be."""
    more_ann_ids: tuple[int, ...] = ()
    """The annotations beside `ann_id`, where several are meant."""

    @property
    def ann_ids(self) -> tuple[int, ...]:
        """The annotations that are meant together, most often one."""
        return () if self.ann_id == NO_TARGET else (self.ann_id, *self.more_ann_ids)

    def texts(self, text: Text) -> tuple[str, ...]:
        """The expressions as `text` names them; sentence n is the same sentence in both."""
        return self.raw_expressions if text == "raw" else self.expressions


class ReferDataset:
    """The usable refs of one data set, with their images' paths and sizes and their masks.

    Holds plain dicts: no images, masks undecoded. To data-loader processes it does not go, `SharedAnnotations` do.
    """

    def __init__(
        self,
        spec: SplitSpec,
        refs: tuple[Ref, ...],
        problems: ReferProblems,
        image_folder: Path,
        images: dict[int, ImageRecord],
        segmentations: dict[int, Segmentation],
        categories: dict[int, str],
        notes: tuple[str, ...] = (),
        *,
        is_upright: bool = False,
        turned_ids: frozenset[int] = frozenset(),
    ) -> None:
        self.spec = spec
        self.refs = refs
        self.problems = problems
        self.notes = notes  # what a user should know, though nothing was dropped
        self.image_folder = image_folder
        self.is_upright = is_upright  # whether images are turned by EXIF, and masks fit those; `load_image`
        self.turned_ids = turned_ids  # those that EXIF turns, of own data
        self._images = images
        self._segmentations = segmentations
        self._categories = categories

    @classmethod
    def load(cls, root: Path | str, split_name: str, images: Path | str | None = None) -> "ReferDataset":
        """Read the data set `split_name` (a name in `SPLITS`) below the data root; `open_dataset` reads own data too.

        `images` is the image folder where it is not the data set's default. `refs` of the result are in ref-id order.
        Image files are looked for in one listing of the folder; none is opened.

        Raises `InputError` when the data set's name is unknown, a file or the image folder is missing, a file
        contradicts its format, an image name leads out of the image folder, or no ref at all can be used.
        """
        return cls.load_spec(root, spec_of(split_name), images)

    @classmethod
    def load_spec(cls, root: Path | str, spec: SplitSpec, images: Path | str | None = None) -> "ReferDataset":
        """As `load`, of a data set that has no name in `SPLITS`."""
        refs_path, instances_path, image_folder = require_files(root, spec, images)

        with paused_garbage_collection():
            refs, with_empty, with_single = read_refs(refs_path)
            ann_ids = {ann_id for ref in refs for ann_id in ref.ann_ids}
            instances = read_instances(instances_path, ann_ids, {ref.image_id for ref in refs})
        files = _list_files(image_folder)

        dropped: dict[str, list[int]] = defaultdict(list)
        dropped_of: dict[str, list[int]] = defaultdict(list)
        kept = []
        for ref in refs:
            problem = problem_of(ref, instances, files)
            if problem is None:
                kept.append(ref)
            else:
                dropped[problem].append(ref.ref_id)
                dropped_of[ref.split].append(ref.ref_id)
        kept_ids = {ref.ref_id for ref in kept}
        problems = ReferProblems(
            **{name: tuple(ids) for name, ids in dropped.items()},
            empty_expressions=tuple(ref_id for ref_id in with_empty if ref_id in kept_ids),
            single_text=tuple(ref_id for ref_id in with_single if ref_id in kept_ids),
            num_refs=Counter(ref.split for ref in refs),
            dropped_of={split: tuple(ids) for split, ids in dropped_of.items()},
        )
        if not kept:
            found = "; ".join(problems.summary()) or "the list is empty"
            raise InputError(
                f"{refs_path}: expected refs with images in {image_folder} and masks in {instances_path.name}, "
                f"found none of {len(refs)} usable ({found}); {spec.hint}"
            )
        used_images = {ref.image_id for ref in kept}
        used_annotations = {ann_id: instances.annotations[ann_id] for ref in kept for ann_id in ref.ann_ids}
        skipped = sum(ref.split == "train" and len(ref.ann_ids) != 1 for ref in kept)
        return cls(
            spec,
            tuple(kept),
            problems,
            image_folder,
            {image_id: image for image_id, image in instances.images.items() if image_id in used_images},
            {ann_id: found.mask for ann_id, found in used_annotations.items() if found.mask is not None},
            instances.categories,
            (f"training skips {skipped} train refs that mean several objects or none",) if skipped else (),
        )

    @property
    def image_ids(self) -> list[int]:
        """The distinct images of all refs, in ref-id order: what stage one has to run on."""
        return list(dict.fromkeys(ref.image_id for ref in self.refs))

    @property
    def image_names(self) -> dict[str, int]:
        """The ids of the same images by the names of their files; of own data by their paths as a line has them."""
        return {self.image_record(image_id).file_name: image_id for image_id in self.image_ids}

    def refs_of(self, split: str) -> list[Ref]:
        """The refs of `train` or an evaluation split, in ref-id order.

        As in refer, `test` takes every split whose name begins with it (testA and testB of RefCOCO) where none has just
        that name, any other name only itself. Of `train` only those of one annotation: no training knows others. Raises
        `InputError` when no ref is in the split.
        """
        names = sorted({ref.split for ref in self.refs})
        meant = splits_of(split, names)
        refs = [ref for ref in self.refs if ref.split in meant]
        if split == "train":
            refs = [ref for ref in refs if len(ref.ann_ids) == 1]
        if not refs:
            found = ", ".join(names)
            raise InputError(f"expected a split of {self.spec.name} with refs, found {split!r}; it has {found}")
        return refs

    def image_path(self, image_id: int) -> Path:
        """Path of the image's file, directly in `image_folder`; of own data, below it or wherever its line says."""
        return self.image_folder / self.image_record(image_id).file_name

    def image_size(self, image_id: int) -> tuple[int, int]:
        """(height, width) in pixels, as the image record in instances.json gives it; of own data, the file itself."""
        image = self.image_record(image_id)
        return image.height, image.width

    def image(self, image_id: int) -> NDArray[np.uint8]:
        """The image, uint8 [H, W, 3], RGB. Raises `InputError` when it is damaged or of another size than recorded."""
        return load_image_of_size(self.image_path(image_id), self.image_size(image_id), upright=self.is_upright)

    def mask(self, ref: Ref) -> NDArray[np.bool_]:
        """The referent's mask, bool [H, W], at the image's size, of several their union, of none empty; decoded anew at
        each call. Raises `InputError` for a ref whose mask is not known."""
        segmentation = self.segmentation(ref)
        if segmentation is None:
            raise InputError(f"expected a ref of {self.spec.name} with a mask, found ref {ref.ref_id} without one")
        return decode_segmentation(segmentation, *self.image_size(ref.image_id))

    def segmentation(self, ref: Ref) -> Segmentation | None:
        """The referent's mask as `decode_segmentation` reads it; None where it is not known."""
        if len(ref.ann_ids) == 1:
            return self._segmentations.get(ref.ann_id)
        parts = [self._segmentations[ann_id] for ann_id in ref.ann_ids]
        return unite_segmentations(parts, *self.image_size(ref.image_id))

    def category(self, ref: Ref) -> str:
        """COCO name of the referent's category, "person" for instance. Raises `InputError` for one without a record."""
        name = self._categories.get(ref.category_id)
        if name is None:
            raise InputError(
                f"ref {ref.ref_id}: expected a category of instances.json, found id {ref.category_id}; "
                "the refs and instances files do not belong together"
            )
        return name

    def image_record(self, image_id: int) -> ImageRecord:
        """The image's file name and size. Raises `InputError` for one that no usable ref is on."""
        image = self._images.get(image_id)
        if image is None:
            raise InputError(f"expected an image of {self.spec.name}, found id {image_id}; no usable ref is on it")
        return image


def require_files(root: Path | str, spec: SplitSpec, images: Path | str | None = None) -> tuple[Path, Path, Path]:
    """Where the refs, the instances and the images of a data set are; InputError where one of them is missing."""
    image_folder = Path(images) if images is not None else Path(root) / spec.images
    refs_path = Path(root) / spec.folder / f"refs({spec.by}).p"
    instances_path = Path(root) / spec.folder / "instances.json"
    missing = [path.name for path in (refs_path, instances_path) if not path.is_file()]
    if missing:
        raise InputError(
            f"no data for {spec.name}: expected {refs_path} and {instances_path}, missing {' and '.join(missing)}; "
            f"{spec.hint}"
        )
    if not image_folder.is_dir():
        raise InputError(f"no images for {spec.name}: expected the folder {image_folder}, found none; {spec.hint}")
    return refs_path, instances_path, image_folder


def read_refs(path: Path) -> tuple[list[Ref], list[int], list[int]]:
    """All refs of a `refs(<by>).p` in ref-id order, those without expressions too; the ids of refs that lost empty
    expressions; the ids of refs with a sentence that has only one of its two texts. InputError as `ReferDataset.load`.
    """
    refs: dict[int, Ref] = {}
    with_empty, with_single = [], []
    for index, record in enumerate(load_refs_pickle(path)):
        where = f"{path}: ref {index}"
        ref_id = field_of(record, "ref_id", int, where)
        if ref_id in refs:
            raise InputError(f"{where}: expected a ref id of its own, found {ref_id} a second time; fix the file")
        texts = [_texts(sentence, f"{where}, sentences") for sentence in field_of(record, "sentences", list, where)]
        found = [(sent or raw, raw or sent) for sent, raw in texts if sent or raw]
        first, *more = _one_or_more(record, "ann_id", where)
        refs[ref_id] = Ref(
            ref_id=ref_id,
            image_id=field_of(record, "image_id", int, where),
            ann_id=first,
            more_ann_ids=tuple(more),
            category_id=_one_or_more(record, "category_id", where)[0],
            split=field_of(record, "split", str, where),
            expressions=tuple(sent for sent, _ in found),
            raw_expressions=tuple(raw for _, raw in found),
        )
        if len(found) < len(texts):
            with_empty.append(ref_id)
        if any(bool(sent) != bool(raw) for sent, raw in texts):
            with_single.append(ref_id)
    return [refs[ref_id] for ref_id in sorted(refs)], sorted(with_empty), sorted(with_single)


def _texts(sentence: Any, where: str) -> tuple[str, str]:
    """`sent` and `raw` of a sentence without blanks around them; "" for one that home-made files leave out."""
    if not isinstance(sentence, dict):
        raise InputError(f"{where}: expected a dict with `sent`, found a {type(sentence).__name__}; fix the file")
    sent, raw = (
        "" if sentence.get(key) is None else field_of(sentence, key, str, where).strip() for key in ("sent", "raw")
    )
    return sent, raw


def _one_or_more(record: dict[str, Any], key: str, where: str) -> list[int]:
    """The number under `key`, or the numbers of a list there, without repetitions; `NO_TARGET` for an empty list."""
    value = record.get(key)
    if not isinstance(value, list):
        return [field_of(record, key, int, where)]
    if not all(type(number) is int for number in value) or (NO_TARGET in value and len(set(value)) > 1):
        raise InputError(
            f"{where}: expected `{key}` as a number, a list of numbers or [{NO_TARGET}], found {str(value)[:80]}; fix "
            "the file"
        )
    return list(dict.fromkeys(value)) or [NO_TARGET]


def problem_of(ref: Ref, instances: Instances, files: set[str]) -> str | None:
    """The field of `ReferProblems` that a ref belongs under; None for a usable one."""
    image = instances.images.get(ref.image_id)
    if image is None:
        return "no_image_record"
    if image.file_name not in files:
        return "no_image_file"
    if not instances.annotations.keys() >= set(ref.ann_ids):
        return "no_annotation"
    annotations = [instances.annotations[ann_id] for ann_id in ref.ann_ids]
    if any(annotation.image_id != ref.image_id for annotation in annotations):
        return "other_image"
    if any(annotation.mask is None for annotation in annotations):
        return "no_mask"
    return None if ref.expressions else "no_expression"


def _list_files(folder: Path) -> set[str]:
    """Names of the files in a folder: one listing is some hundred times cheaper than a look-up for each image."""
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except OSError as error:
        raise InputError(f"{folder}: expected a readable image folder, found none ({error}); check it") from error
