"""The data sets that the command line knows by name: where their files lie below a data root."""

from dataclasses import dataclass

_COCO_IMAGES = "images/mscoco/images/train2014"
_HELP = 'put the files there as in the README, "RefCOCO step by step" (the links in lichengunc/refer are dead)'


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """One data set under the name the command line knows it by."""

    name: str
    """What `--split` takes."""
    folder: str
    """Folder of the two files, below the data root."""
    by: str
    """Who split it: the part in parentheses of `refs(<by>).p`."""
    evaluation: tuple[str, ...]
    """Splits to evaluate on, in the order of the published tables; `train` is in every data set."""
    images: str = _COCO_IMAGES
    """Default image folder, below the data root."""
    hint: str = _HELP
    """What to do when the files are missing."""


SPLITS: dict[str, SplitSpec] = {
    spec.name: spec
    for spec in (
        SplitSpec(name="refcoco", folder="refcoco", by="unc", evaluation=("val", "testA", "testB")),
        SplitSpec(name="refcoco+", folder="refcoco+", by="unc", evaluation=("val", "testA", "testB")),
        SplitSpec(name="refcocog", folder="refcocog", by="umd", evaluation=("val", "test")),
        SplitSpec(name="refcocog-google", folder="refcocog", by="google", evaluation=("val",)),
        SplitSpec(
            name="refshapes",
            folder="refshapes",
            by="procedural",
            evaluation=("val", "testA", "testB"),
            images="refshapes/images",
            hint='semires writes RefShapes itself: see the README, "RefShapes"',
        ),
    )
}
