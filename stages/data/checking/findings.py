"""What is wrong with a data set, and what is worth knowing about it.

Wrong is what makes training or scores other than those of the data set that its name promises: counts that differ
from the published ones, refs that were dropped, damaged images, images that train and evaluation share where the data
set says that they share none. All else is information.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from itertools import islice
from typing import Literal, Protocol

from semires.stages.data.checking.counts import SplitCounts, count_splits
from semires.stages.data.errors import InputError
from semires.stages.data.problems import DESCRIPTIONS, KEPT, ReferProblems
from semires.stages.data.refer import Ref, ReferDataset, Text

OnProgress = Callable[[int, int], None]
THREADS = 4
"""Images opened at a time: decoders let other threads run."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One kind of thing that was found. `ids`: of what `of` says, in ascending order, all of them."""

    kind: str
    is_wrong: bool
    text: str
    """In a line, counts included."""
    of: Literal["refs", "images", "annotations"] = "refs"
    ids: tuple[int, ...] = ()


class Reader(Protocol):
    """A tokenizer, as far as it matters here."""

    max_tokens: int

    def lost(self, expression: str) -> tuple[int, int]:
        """How many word pieces of an expression are cut away, and how many are unknown."""


def compare_counts(found: dict[str, SplitCounts], published: dict[str, SplitCounts]) -> list[Finding]:
    """A finding for each split with other counts than the published ones."""
    none = SplitCounts(refs=0, images=0, expressions=0)
    findings = []
    for split in dict.fromkeys([*published, *found]):
        here, there = found.get(split, none), published.get(split, none)
        differing = [
            f"{getattr(here, field.name):,} {field.name} of {getattr(there, field.name):,}"
            for field in fields(SplitCounts)
            if getattr(here, field.name) != getattr(there, field.name)
        ]
        if differing:
            text = f"{split} has other counts than the published ones: {', '.join(differing)}"
            findings.append(Finding(kind="counts", is_wrong=True, text=text))
    return findings


def find_dropped(problems: ReferProblems) -> list[Finding]:
    """A finding for each kind of ref that was dropped or changed on loading."""
    return [
        Finding(kind=name, is_wrong=name not in KEPT, text=f"{len(ids):,} {text}", ids=ids)
        for name, text in DESCRIPTIONS.items()
        if (ids := getattr(problems, name))
    ]


def find_shared(refs: Sequence[Ref], *, may_share_images: bool) -> list[Finding]:
    """Images and annotations that are in train and in an evaluation split."""
    train = [ref for ref in refs if ref.split == "train"]
    others = [ref for ref in refs if ref.split != "train"]
    images = _ids({ref.image_id for ref in train} & {ref.image_id for ref in others})
    of_train, of_others = ({ann_id for ref in part for ann_id in ref.ann_ids} for part in (train, others))
    annotations = _ids(of_train & of_others)
    findings = []
    if images:
        text = f"{len(images):,} images are in train and in an evaluation split"
        if may_share_images:
            text += ", as published: objects were split, not images"
        finding = Finding(kind="shared_images", is_wrong=not may_share_images, text=text, of="images", ids=images)
        findings.append(finding)
    if annotations:
        text = f"{len(annotations):,} annotations are in train and in an evaluation split"
        findings.append(Finding(kind="shared_annotations", is_wrong=True, text=text, of="annotations", ids=annotations))
    return findings


def find_repeated(refs: Sequence[Ref]) -> list[Finding]:
    """What refs have in common: images, annotations, expressions (`sent`, without regard to case)."""
    findings = []
    per_image = Counter(ref.image_id for ref in refs)
    if per_image:
        images = _ids(image for image, count in per_image.items() if count > 1)
        text = (
            f"{len(images):,} of {len(per_image):,} images have several refs: {len(refs) / len(per_image):.2f} in the "
            f"mean, {max(per_image.values()):,} at most"
        )
        findings.append(Finding(kind="refs_of_one_image", is_wrong=False, text=text, of="images", ids=images))
    per_annotation = Counter(ann_id for ref in refs for ann_id in ref.ann_ids)
    annotations = _ids(ann_id for ann_id, count in per_annotation.items() if count > 1)
    if annotations:
        text = f"{len(annotations):,} annotations have several refs"
        findings.append(
            Finding(kind="refs_of_one_annotation", is_wrong=False, text=text, of="annotations", ids=annotations)
        )

    twice = []
    annotations_of: dict[tuple[int, str], set[tuple[int, ...]]] = defaultdict(set)
    for ref in refs:
        texts = [text.casefold() for text in ref.expressions]
        if len(set(texts)) < len(texts):
            twice.append(ref.ref_id)
        for text in texts:
            annotations_of[ref.image_id, text].add(ref.ann_ids)
    if twice:
        text = f"{len(twice):,} refs have an expression twice"
        findings.append(Finding(kind="expression_twice", is_wrong=False, text=text, ids=_ids(twice)))
    ambiguous = _ids(image for (image, _), annotations in annotations_of.items() if len(annotations) > 1)
    if ambiguous:
        text = f"{len(ambiguous):,} images have an expression that is of several annotations"
        findings.append(Finding(kind="expression_ambiguous", is_wrong=False, text=text, of="images", ids=ambiguous))
    return findings


def find_unread_splits(refs: Sequence[Ref], evaluation: Sequence[str]) -> list[Finding]:
    """Refs of splits that no command reads."""
    found = count_splits(ref for ref in refs if ref.split not in ("train", *evaluation))
    return [
        Finding(
            kind="unread_split",
            is_wrong=False,
            text=f"{counts.refs:,} refs are in the split {split!r}, which nothing reads by itself",
            ids=_ids(ref.ref_id for ref in refs if ref.split == split),
        )
        for split, counts in found.items()
    ]


def find_unread_words(
    refs: Sequence[Ref], reader: Reader, text: Text, on_progress: OnProgress | None = None
) -> list[Finding]:
    """Expressions of which the model does not read all: cut at `max_tokens`, or with words that it does not know."""
    lost: dict[str, tuple[int, int]] = {}
    cut, unknown = [], []
    num_cut = num_unknown = num_all = 0
    for done, ref in enumerate(refs, start=1):
        for expression in ref.texts(text):
            if expression not in lost:
                lost[expression] = reader.lost(expression)
            is_cut, is_unknown = (number > 0 for number in lost[expression])
            num_all += 1
            num_cut += is_cut
            num_unknown += is_unknown
            if is_cut:
                cut.append(ref.ref_id)
            if is_unknown:
                unknown.append(ref.ref_id)
        if on_progress is not None and (done % 1000 == 0 or done == len(refs)):
            on_progress(done, len(refs))
    found = (
        ("expressions_cut", f"are cut at {reader.max_tokens} tokens", num_cut, cut),
        ("expressions_unknown", "have words that the tokenizer does not know", num_unknown, unknown),
    )
    return [
        Finding(
            kind=kind,
            is_wrong=False,
            text=f"{number:,} of {num_all:,} expressions ({100 * number / num_all:.2f}%) {what}",
            ids=_ids(ids),
        )
        for kind, what, number, ids in found
        if number
    ]


def find_unreadable(dataset: ReferDataset, on_progress: OnProgress | None = None) -> list[Finding]:
    """Images that cannot be decoded or have another size than recorded, each a finding; refs whose masks are empty."""
    image_ids = sorted(dataset.image_ids)

    def problem(image_id: int) -> str | None:
        try:
            dataset.image(image_id)
        except InputError as error:
            return str(error)
        return None

    findings, done = [], 0
    with ThreadPoolExecutor(THREADS) as pool:
        # In portions: an interrupt then waits for one of them, not for all images.
        for portion in _portions(image_ids, 64):
            for image_id, reason in zip(portion, pool.map(problem, portion), strict=True):
                if reason is not None:
                    finding = Finding(kind="damaged_image", is_wrong=True, text=reason, of="images", ids=(image_id,))
                    findings.append(finding)
            done += len(portion)
            if on_progress is not None:
                on_progress(done, len(image_ids))
    masked = (ref for ref in dataset.refs if dataset.segmentation(ref) is not None)
    empty = _ids(ref.ref_id for ref in masked if not dataset.mask(ref).any())
    if empty:
        text = f"{len(empty):,} refs have a mask without a pixel"
        findings.append(Finding(kind="empty_mask", is_wrong=False, text=text, ids=empty))
    return findings


def _portions(ids: Sequence[int], size: int) -> Iterable[list[int]]:
    left = iter(ids)
    while portion := list(islice(left, size)):
        yield portion


def _ids(ids: Iterable[int]) -> tuple[int, ...]:
    return tuple(sorted(set(ids)))
