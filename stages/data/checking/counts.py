"""Refs, images and expressions of every split: of a data set that is here, and as published."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from semires.stages.data.refer import Ref


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """How much a split has; `expressions` over all of its refs."""

    refs: int
    images: int
    expressions: int


def count_splits(refs: Iterable[Ref]) -> dict[str, SplitCounts]:
    """The counts of each split that has refs."""
    by_split = defaultdict(list)
    for ref in refs:
        by_split[ref.split].append(ref)
    return {
        split: SplitCounts(
            refs=len(of_split),
            images=len({ref.image_id for ref in of_split}),
            expressions=sum(len(ref.expressions) for ref in of_split),
        )
        for split, of_split in by_split.items()
    }


def _counts(**splits: tuple[int, int, int]) -> dict[str, SplitCounts]:
    return {
        split: SplitCounts(refs=refs, images=images, expressions=expressions)
        for split, (refs, images, expressions) in splits.items()
    }


# Refs and images: TensorFlow Datasets' pages of ref_coco and, for the google split's images, of gref. Expressions:
# counted in the archives by TarunTomar122/attention-is-all-you-need-for-vlms, docs/datasets.md; RefCOCO's agree with
# Yang et al. (ICML 2024). Nobody who counted the google split's expressions was found: summaries of G-Ref give 85,474
# to train, and val has the rest of the 95,010, of which the UMD split is another division. RefCOCO-M: the card of its
# authors, moondream/refcoco-m, where a mask is a ref.
PUBLISHED: dict[str, dict[str, SplitCounts]] = {
    "refcoco": _counts(
        train=(42_404, 16_994, 120_624),
        val=(3_811, 1_500, 10_834),
        testA=(1_975, 750, 5_657),
        testB=(1_810, 750, 5_095),
    ),
    "refcoco+": _counts(
        train=(42_278, 16_992, 120_191),
        val=(3_805, 1_500, 10_758),
        testA=(1_975, 750, 5_726),
        testB=(1_798, 750, 4_889),
    ),
    "refcocog": _counts(
        train=(42_226, 21_899, 80_512),
        val=(2_573, 1_300, 4_896),
        test=(5_023, 2_600, 9_602),
    ),
    "refcocog-google": _counts(
        train=(44_822, 24_698, 85_474),
        val=(5_000, 4_650, 9_536),
    ),
    # As its seed draws it; images without refs are not counted.
    "refshapes": _counts(
        train=(3_000, 1_000, 6_116),
        val=(900, 300, 1_813),
        testA=(251, 126, 495),
        testB=(233, 114, 477),
    ),
    "refcoco-m": _counts(val=(2_080, 1_190, 5_598)),
}
"""By data set (`SPLITS`) and split."""
