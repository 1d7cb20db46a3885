from semires.stages.data.checking.counts import PUBLISHED, SplitCounts, count_splits
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.splits import SPLITS


def test_published__of_every_data_set_and_split() -> None:
    # What an import names itself, a cleaned copy for instance, is not what is published.
    assert set(PUBLISHED) == {name for name in SPLITS if not name.endswith(("-clean", "-lmms", "grefcoco"))}
    for name, counts in PUBLISHED.items():
        assert tuple(counts) == (*(["train"] if name != "refcoco-m" else []), *SPLITS[name].evaluation)


def test_published__totals_that_papers_give() -> None:
    def total(name: str, field: str) -> int:
        return sum(getattr(counts, field) for counts in PUBLISHED[name].values())

    # Yu et al. (ECCV 2016) count RefCOCO and RefCOCO+; G-Ref is divided twice.
    assert [total("refcoco", field) for field in ("refs", "images", "expressions")] == [50_000, 19_994, 142_210]
    assert [total("refcoco+", field) for field in ("refs", "images", "expressions")] == [49_856, 19_992, 141_564]
    assert total("refcocog", "refs") == total("refcocog-google", "refs") == 49_822
    assert total("refcocog", "expressions") == total("refcocog-google", "expressions") == 95_010
    assert total("refcocog", "images") == 25_799  # of the google split, whose parts share images, it is more
    assert total("refcocog-google", "images") > 25_799


def test_count_splits(refshapes: ReferDataset) -> None:
    found = count_splits(refshapes.refs)
    assert found["train"].refs == 36
    assert found["train"].images == 12
    assert sum(counts.expressions for counts in found.values()) == sum(len(ref.expressions) for ref in refshapes.refs)


def test_count_splits__by_hand() -> None:
    def ref(ref_id: int, image_id: int, split: str, *expressions: str) -> Ref:
        return Ref(
            ref_id=ref_id,
            image_id=image_id,
            ann_id=ref_id,
            category_id=1,
            split=split,
            expressions=expressions,
            raw_expressions=expressions,
        )

    found = count_splits([ref(1, 7, "train", "a", "b"), ref(2, 7, "train", "a"), ref(3, 7, "val", "c")])
    assert found == {
        "train": SplitCounts(refs=2, images=1, expressions=3),
        "val": SplitCounts(refs=1, images=1, expressions=1),
    }
