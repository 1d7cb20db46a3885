"""Ref-L4's reviewed lists (`refcoco_val_reviewed.json`, …): which expressions of RefCOCO's family are wrong.

COCO's layout with an image record an expression: `images` has `id`, `file_name` (COCO's) and `caption`, `annotations`
has `image_id`, `bbox` (x, y, width, height) and `caption_quality`, 0 for a wrong expression. Nothing in it names the
ref, so that an expression is found by its image, its text and its box.
"""

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.importing.fields import numbers_field
from semires.stages.data.instances import field_of

Box = tuple[float, float, float, float]
BOX_TOLERANCE = 1.0  # pixels between the box of a list and that of the annotation it was copied from


@dataclass(frozen=True, kw_only=True)
class ReviewedList:
    """COCO's image id, text and box of each expression that the list at `path` calls wrong."""

    path: Path
    wrong: tuple[tuple[int, str, Box], ...]


@dataclass(frozen=True, kw_only=True)
class Cleaned:
    """What lists left of a data set: its refs, those of every wrong expression without it; the wrong expressions of
    each split that were found, the refs that lost all, and how many of the lists' wrong ones are of none here."""

    refs: list[dict[str, Any]]
    num_wrong: dict[str, int]
    lost_refs: list[int]
    num_unknown: int


def read_list(path: Path) -> ReviewedList:
    """What is wrong by the list at `path`; InputError where the file is none."""
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"--clean-list: expected a reviewed list of Ref-L4, could not read {path} ({error}); check the path"
        ) from error
    images: dict[int, tuple[int, str]] = {}
    for number, image in enumerate(field_of(content, "images", list, str(path))):
        where = f"{path}: images[{number}]"
        # The file's own ids count expressions; COCO's is in the image's name.
        digits = re.search(r"(\d{12})", field_of(image, "file_name", str, where))
        if digits is None:
            raise InputError(f"{where}: expected COCO's file name, found {image['file_name']!r}; get the file again")
        images[field_of(image, "id", int, where)] = int(digits[1]), _folded(field_of(image, "caption", str, where))
    wrong = []
    for number, annotation in enumerate(field_of(content, "annotations", list, str(path))):
        where = f"{path}: annotations[{number}]"
        image_id, quality = field_of(annotation, "image_id", int, where), annotation.get("caption_quality")
        if not isinstance(quality, int | float) or image_id not in images:
            raise InputError(
                f"{where}: expected `caption_quality` and an `image_id` of the list, found {quality!r} and {image_id}; "
                "is this a reviewed list of Ref-L4?"
            )
        if quality <= 0:
            x, y, width, height = numbers_field(annotation, "bbox", where, count=4)
            wrong.append((*images[image_id], (x, y, width, height)))
    return ReviewedList(path=path, wrong=tuple(wrong))


def clean(refs: Sequence[dict[str, Any]], boxes: dict[int, Box], lists: Sequence[ReviewedList]) -> Cleaned:
    """`refs`, records as `read_refs` takes them, without the expressions that `lists` call wrong.

    boxes: annotation id -> x, y, width, height, where they are known; where one is not, image and text must tell which
    ref is meant. InputError where none of a list's wrong expressions is found: it is of another data set.
    """
    by_text: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for index, ref in enumerate(refs):
        for number, sentence in enumerate(ref["sentences"]):
            for text in {_folded(sentence.get(key) or "") for key in ("sent", "raw")}:
                by_text[ref["image_id"], text].append((index, number))
    to_go: dict[int, set[int]] = defaultdict(set)
    num_unknown = 0
    for reviewed in lists:
        num_found = 0
        for image_id, text, box in reviewed.wrong:
            found = by_text.get((image_id, text), [])
            is_one = len({index for index, _ in found}) == 1
            found = [item for item in found if _is_of(box, boxes, refs[item[0]].get("ann_id"), is_one)]
            for index, number in found:
                to_go[index].add(number)
            num_found += bool(found)
        if reviewed.wrong and not num_found:
            raise InputError(
                f"--clean-list: expected a list of this data set, found none of the {len(reviewed.wrong):,} "
                f"expressions that {reviewed.path} calls wrong; is it of another data set, or of a split not here?"
            )
        num_unknown += len(reviewed.wrong) - num_found
    kept, lost, num_wrong = [], [], dict[str, int]()
    for index, ref in enumerate(refs):
        wrong = to_go.get(index, set())
        left = [sentence for number, sentence in enumerate(ref["sentences"]) if number not in wrong]
        num_wrong[ref["split"]] = num_wrong.get(ref["split"], 0) + len(wrong)
        if wrong and not left:
            lost.append(ref["ref_id"])
        else:
            sent_ids = [sentence["sent_id"] for sentence in left if "sent_id" in sentence]
            kept.append({**ref, "sentences": left, "sent_ids": sent_ids} if wrong else ref)
    return Cleaned(
        refs=kept,
        num_wrong={split: number for split, number in num_wrong.items() if number},
        lost_refs=lost,
        num_unknown=num_unknown,
    )


def _folded(text: str) -> str:
    return " ".join(text.split()).casefold()


def _is_of(box: Box, boxes: dict[int, Box], ann_id: Any, otherwise: bool) -> bool:
    """Whether a list's box is that of an annotation; `otherwise` where that has none that is known."""
    known = boxes.get(ann_id) if isinstance(ann_id, int) else None
    return otherwise if known is None else all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(known, box, strict=True))
