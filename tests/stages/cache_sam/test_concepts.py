import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from semires.stages.cache_sam import concepts
from semires.stages.cache_sam.concepts import (
    BESIDE,
    ONLY,
    RULE,
    ConceptSettings,
    concepts_of,
    digest_of,
    summary,
    with_concepts,
)
from semires.stages.cache_sam.generator.settings import GeneratorSettings
from semires.stages.cache_sam.sources import train_images
from semires.stages.data.errors import InputError
from semires.stages.data.importing.coco_categories import COCO_CATEGORIES
from semires.stages.data.refer import ReferDataset


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # RefCOCO's, as its annotators wrote them.
        ("white frosting pile on right", {"frosting", "pile"}),
        ("left perosn", {"perosn"}),
        ("man with stripes on the sleeve of his shirt", {"man", "stripes", "sleeve", "shirt"}),
        ("second to left middle row green round thing", {"round"}),
        ("wood table next to beer behind plate", {"wood", "table", "beer", "plate"}),
        ("dude in a white hat towards bottom center", {"dude", "hat"}),
        ("teddy bear closest to camera", {"teddy", "bear", "camera"}),
        ("guy in doorway", {"guy", "doorway"}),
        ("the keyboard on the left with the black mouse ontop", {"keyboard", "mouse", "ontop"}),
        ("bottom right corner of picture", set()),
        ("taller", set()),
        ("24 bike", {"bike"}),
        # Signs, cases and nothing at all.
        ("MAN IN RED T-SHIRT", {"man", "shirt"}),
        ("man/woman,left;dog_house (cat)", {"man", "woman", "dog", "house", "cat"}),
        ("the catcher's mitt", {"catcher", "mitt"}),
        ("zebra2 and 1st horse", {"horse"}),
        ("e :) ???", set()),
        ("", set()),
    ],
)
def test_concepts_of__an_expression(expression: str, expected: set[str]) -> None:
    assert concepts_of([expression]) == tuple(sorted(expected))


def test_concepts_of__each_once_over_all_expressions() -> None:
    assert concepts_of(["left man", "man in shirt", "men"]) == ("man", "men", "shirt")
    assert concepts_of([]) == ()


def test_concepts_of__coco_s_categories() -> None:
    """What a category is called ends in a noun, which is a concept alone and in a sentence."""
    for name in {category.split()[-1] for category in COCO_CATEGORIES.values()}:
        assert concepts_of([name]) == concepts_of([f"the {name} on the left"]) == (name,), name


def test_concepts_of__without_textblob(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "textblob.taggers", None)
    concepts._tagger.cache_clear()
    with pytest.raises(InputError, match=r"expected the package textblob.*pip install 'semires\[concepts\]'"):
        concepts.require_tagger()


def test_digest_of__tells_lists_apart() -> None:
    digests = {digest_of(words) for words in [(), ("man",), ("man", "men"), ("manmen",), ("men",)]}
    assert len(digests) == 5
    assert {len(digest) for digest in digests} == {16}


def test_with_concepts__of_the_train_refs_of_an_image(refshapes: ReferDataset) -> None:
    told: list[tuple[int, int]] = []
    sources = train_images(refshapes)
    found = with_concepts(sources, refshapes, on_progress=lambda done, total: told.append((done, total)))
    assert [replace(source, concepts=None) for source in found] == sources
    assert told[-1] == (len(sources), len(sources))
    for source in found:
        texts = [
            text for ref in refshapes.refs_of("train") if ref.image_id == source.image_id for text in ref.expressions
        ]
        assert source.concepts == concepts_of(texts)
    assert all(source.concepts for source in found)


def test_with_concepts__other_splits_on_the_same_image_are_not_read(
    refshapes: ReferDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = [ref for ref in refshapes.refs if ref.split == "train"]
    here = replace(first, expressions=("a dog",))
    there = replace(first, ref_id=10**6, split="val", expressions=("a cat",))
    monkeypatch.setattr(refshapes, "refs", (here, *(ref for ref in others if ref.image_id != first.image_id), there))
    (found,) = with_concepts([s for s in train_images(refshapes) if s.image_id == first.image_id], refshapes)
    assert found.concepts == ("dog",)


def test_summary__counts_images_without(refshapes: ReferDataset) -> None:
    source = train_images(refshapes)[0]
    sources = [replace(source, concepts=words) for words in [("man", "hat"), ("man",), ()]]
    assert summary(sources) == (
        "concepts: 2 nouns in the expressions of 3 images, 1.0 an image; 1 images have none: SAM 3 is asked nothing "
        "about them"
    )
    assert summary(sources[:2]) == "concepts: 2 nouns in the expressions of 2 images, 1.5 an image"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda: ConceptSettings(mode="instead"), "--concepts: expected only or beside, found 'instead'"),
        (
            lambda: ConceptSettings(mode=ONLY, threshold=1.5),
            "--concept-thresh: expected a number from 0 to 1, found 1.5",
        ),
        (lambda: ConceptSettings(mode=ONLY).check(["points_per_side"]), "--points-per-side: expected none"),
    ],
)
def test_settings__refused(make: Callable[[], object], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        make()


def test_settings__what_is_recorded() -> None:
    settings = GeneratorSettings(points_per_side=5, box_nms_thresh=0.6)
    beside, only = ConceptSettings(mode=BESIDE, threshold=0.4), ConceptSettings(mode=ONLY)
    beside.check(["points_per_side", "box_nms_thresh"])
    only.check(["box_nms_thresh"])
    own = {"concepts": "beside", "concept_rule": RULE, "concept_thresh": 0.4}
    assert beside.recorded(settings) == settings.recorded() | own
    assert only.recorded(settings) == {
        "stability_score_offset": 1.0,
        "box_nms_thresh": 0.6,
        "min_mask_region_area": 0,
        "concepts": "only",
        "concept_rule": RULE,
        "concept_thresh": 0.5,
    }
    of_words = beside.of_words(settings)
    assert (of_words.pred_iou_thresh, of_words.stability_score_thresh, of_words.box_nms_thresh) == (0.4, 0.0, 0.6)
