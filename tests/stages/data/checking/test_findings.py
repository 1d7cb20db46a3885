import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask

from semires.stages.data.checking.counts import SplitCounts
from semires.stages.data.checking.findings import (
    compare_counts,
    find_dropped,
    find_repeated,
    find_shared,
    find_unread_splits,
    find_unread_words,
    find_unreadable,
)
from semires.stages.data.problems import DESCRIPTIONS, ReferProblems
from semires.stages.data.refer import NO_TARGET, Ref, ReferDataset


def ref(ref_id: int, **changes: Any) -> Ref:
    values: dict[str, Any] = {
        "ref_id": ref_id,
        "image_id": ref_id * 10,
        "ann_id": ref_id * 100,
        "category_id": 1,
        "split": "train",
        "expressions": (f"thing {ref_id}",),
    } | changes
    return Ref(**({"raw_expressions": values["expressions"]} | values))


def counts(refs: int, images: int, expressions: int) -> SplitCounts:
    return SplitCounts(refs=refs, images=images, expressions=expressions)


def test_compare_counts__what_differs_and_what_is_missing() -> None:
    published = {"train": counts(5, 4, 10), "val": counts(2, 2, 4), "test": counts(1, 1, 1)}
    found = {"train": counts(5, 4, 10), "val": counts(2, 1, 1234), "more": counts(1, 1, 1)}
    assert [(finding.is_wrong, finding.text) for finding in compare_counts(found, published)] == [
        (True, "val has other counts than the published ones: 1 images of 2, 1,234 expressions of 4"),
        (
            True,
            "test has other counts than the published ones: 0 refs of 1, 0 images of 1, 0 expressions of 1",
        ),
        (
            True,
            "more has other counts than the published ones: 1 refs of 0, 1 images of 0, 1 expressions of 0",
        ),
    ]
    assert compare_counts(published, published) == []


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_find_dropped__every_kind_with_all_its_ids(name: str) -> None:
    (finding,) = find_dropped(ReferProblems(**{name: tuple(range(8))}))
    assert finding.kind == name
    assert finding.ids == tuple(range(8))
    assert finding.text == f"8 {DESCRIPTIONS[name]}"
    # What was not dropped is no error.
    assert finding.is_wrong == ("dropped" in finding.text)


def test_find_shared__images_and_annotations() -> None:
    refs = [ref(1), ref(2), ref(3, split="val", image_id=10), ref(4, split="testA", image_id=20, ann_id=200), ref(5)]
    images, annotations = find_shared(refs, may_share_images=False)
    assert (images.kind, images.is_wrong, images.of, images.ids) == ("shared_images", True, "images", (10, 20))
    assert (annotations.is_wrong, annotations.of, annotations.ids) == (True, "annotations", (200,))
    images, annotations = find_shared(refs, may_share_images=True)
    assert not images.is_wrong
    assert images.text.endswith("evaluation split, as published: objects were split, not images")
    assert annotations.is_wrong
    assert find_shared([ref(1), ref(2, split="val")], may_share_images=False) == []


def test_find_repeated__images_annotations_expressions() -> None:
    refs = [
        ref(1, expressions=("Left dog", "left DOG")),
        ref(2, image_id=10, expressions=("left dog", "cat")),
        ref(3, image_id=30, ann_id=300, expressions=("cat",)),
        ref(4, image_id=30, ann_id=300, expressions=("cat",)),
    ]
    found = {finding.kind: finding for finding in find_repeated(refs)}
    assert not any(finding.is_wrong for finding in found.values())
    assert {kind: (finding.of, finding.ids) for kind, finding in found.items()} == {
        "refs_of_one_image": ("images", (10, 30)),
        "refs_of_one_annotation": ("annotations", (300,)),
        "expression_twice": ("refs", (1,)),
        "expression_ambiguous": ("images", (10,)),  # refs 3 and 4 mean the same object
    }
    assert found["refs_of_one_image"].text == "2 of 2 images have several refs: 2.00 in the mean, 2 at most"


def test_find_unread_splits() -> None:
    (finding,) = find_unread_splits([ref(1), ref(2, split="val"), ref(3, split="x"), ref(4, split="x")], ("val",))
    assert finding.text == "2 refs are in the split 'x', which nothing reads by itself"
    assert (finding.is_wrong, finding.ids) == (False, (3, 4))


class Reader:
    """Knows three words, reads two."""

    max_tokens = 4

    def __init__(self) -> None:
        self.asked: list[str] = []

    def lost(self, expression: str) -> tuple[int, int]:
        self.asked.append(expression)
        words = expression.split()
        return max(len(words) - 2, 0), sum(word not in ("left", "dog", "red") for word in words[:2])


def test_find_unread_words__shares_and_refs() -> None:
    refs = [
        ref(1, expressions=("left dog", "left red dog")),
        ref(2, expressions=("left red dog", "左 dog")),
        ref(3, expressions=("dog",), raw_expressions=("Dog!",)),
    ]
    reader, told = Reader(), []
    cut, unknown = find_unread_words(refs, reader, "sent", lambda done, total: told.append((done, total)))
    assert cut.text == "2 of 5 expressions (40.00%) are cut at 4 tokens"
    assert (cut.is_wrong, cut.ids) == (False, (1, 2))
    assert unknown.text == "1 of 5 expressions (20.00%) have words that the tokenizer does not know"
    assert unknown.ids == (2,)
    assert sorted(reader.asked) == ["dog", "left dog", "left red dog", "左 dog"]  # each once
    assert told == [(3, 3)]
    assert find_unread_words(refs[2:], Reader(), "raw")[0].ids == (3,)
    assert find_unread_words(refs[2:], Reader(), "sent") == []


def test_find_unreadable__images_and_masks(refshapes_root: Path, tmp_path: Path) -> None:
    shutil.copytree(refshapes_root, tmp_path / "data")
    images = sorted((tmp_path / "data" / "refshapes" / "images").glob("train_*.png"))
    images[0].write_bytes(images[0].read_bytes()[:200])
    Image.new("RGB", (5, 5)).save(images[1])
    instances = tmp_path / "data" / "refshapes" / "instances.json"
    content = json.loads(instances.read_text())
    empty = coco_mask.encode(np.zeros((96, 128), dtype=np.uint8, order="F"))["counts"].decode()
    dataset = ReferDataset.load(tmp_path / "data", "refshapes")
    target = dataset.refs[5]
    for annotation in content["annotations"]:
        if annotation["id"] == target.ann_id:
            annotation["segmentation"]["counts"] = empty
    instances.write_text(json.dumps(content))
    dataset = ReferDataset.load(tmp_path / "data", "refshapes")

    told: list[tuple[int, int]] = []
    first, second, mask = find_unreadable(dataset, lambda done, total: told.append((done, total)))
    assert (first.kind, first.is_wrong, first.of, first.ids) == ("damaged_image", True, "images", (1,))
    assert f"{images[0]}: expected an image, found a damaged or other file" in first.text
    assert second.ids == (2,)
    assert "expected (96, 128) pixels" in second.text
    assert (mask.kind, mask.is_wrong, mask.ids) == ("empty_mask", False, (target.ref_id,))
    assert told[-1] == (len(dataset.image_ids), len(dataset.image_ids))
    assert find_unreadable(ReferDataset.load(refshapes_root, "refshapes")) == []


def test_find_shared_and_repeated__refs_of_several_annotations_and_of_none() -> None:
    """gRefCOCO's: that two refs mean nothing is nothing that they have in common."""

    def ref(ref_id: int, image_id: int, split: str, ann_ids: tuple[int, ...]) -> Ref:
        first, *more = ann_ids or (NO_TARGET,)
        return Ref(
            ref_id=ref_id,
            image_id=image_id,
            ann_id=first,
            more_ann_ids=tuple(more),
            category_id=1,
            split=split,
            expressions=(f"expression {ref_id}",),
            raw_expressions=(f"expression {ref_id}",),
        )

    refs = [ref(0, 5, "train", ()), ref(1, 6, "val", ()), ref(2, 7, "train", (20, 21)), ref(3, 8, "val", (22, 21))]
    (shared,) = find_shared(refs, may_share_images=False)
    assert (shared.kind, shared.ids) == ("shared_annotations", (21,))
    of_one = {finding.kind: finding.ids for finding in find_repeated(refs)}
    assert of_one["refs_of_one_annotation"] == (21,)
    assert "expression_ambiguous" not in of_one
