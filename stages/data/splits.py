"""The data sets that the command line takes: those it knows by name, and a JSON-lines file of one's own by its path."""

import os
from dataclasses import dataclass
from pathlib import Path

from semires.stages.data.errors import InputError

_COCO_IMAGES = "images/mscoco/images/train2014"
_HELP = '`semires data download` fetches them (README, "RefCOCO step by step")'
_IMPORT = 'get it with `semires data import` (docs/data.md, "Importing")'


@dataclass(frozen=True, kw_only=True)
class SplitSpec:
    """One data set under the name the command line knows it by."""

    name: str
    """What `--split` takes."""
    folder: str
    """Folder of the two files, below the data root; of own data the file's own folder."""
    by: str
    """Who split it: the part in parentheses of `refs(<by>).p`; "" for own data, which has no such file."""
    evaluation: tuple[str, ...]
    """Splits to evaluate on, in the order of the published tables; `train` is in every data set. Of own data they are
    known when the file is read: those of the spec that `ReferDataset` carries."""
    shares_images: bool = False
    """Whether train and evaluation have images in common: objects were split, not images."""
    images: str = _COCO_IMAGES
    """Default image folder, below the data root."""
    hint: str = _HELP
    """What to do when the files are missing."""

    @property
    def brings_images(self) -> bool:
        """Whether its images lie in a folder of its own, so that a folder of COCO's has nothing to do with it."""
        return self.images != _COCO_IMAGES


SPLITS: dict[str, SplitSpec] = {
    spec.name: spec
    for spec in (
        SplitSpec(name="refcoco", folder="refcoco", by="unc", evaluation=("val", "testA", "testB")),
        SplitSpec(name="refcoco+", folder="refcoco+", by="unc", evaluation=("val", "testA", "testB")),
        SplitSpec(name="refcocog", folder="refcocog", by="umd", evaluation=("val", "test")),
        SplitSpec(name="refcocog-google", folder="refcocog", by="google", evaluation=("val",), shares_images=True),
        SplitSpec(
            name="refshapes",
            folder="refshapes",
            by="procedural",
            evaluation=("val", "testA", "testB"),
            images="refshapes/images",
            hint="semires writes RefShapes itself: see docs/refshapes.md",
        ),
        # What `semires data import` writes under names of its own: it must not pass for what is published.
        *(
            SplitSpec(name=f"{name}-clean", folder=f"{name}-clean", by=by, evaluation=evaluation, hint=_IMPORT)
            for name, by, evaluation in (
                ("refcoco", "unc", ("val", "testA", "testB")),
                ("refcoco+", "unc", ("val", "testA", "testB")),
                ("refcocog", "umd", ("val", "test")),
            )
        ),
        *(
            SplitSpec(
                name=f"{name}-lmms",
                folder=f"{name}-lmms",
                by="lmms",
                evaluation=evaluation,
                images=f"{name}-lmms/images",
                hint=_IMPORT,
            )
            for name, evaluation in (
                ("refcoco", ("val", "testA", "testB")),
                ("refcoco+", ("val", "testA", "testB")),
                ("refcocog", ("val", "test")),
            )
        ),
        # Expressions of several objects or of none: for evaluation above all.
        SplitSpec(name="grefcoco", folder="grefcoco", by="unc", evaluation=("val", "testA", "testB"), hint=_IMPORT),
        SplitSpec(
            name="refcoco-m",
            folder="refcoco-m",
            by="moondream",
            evaluation=("val",),
            images="refcoco-m/images",
            hint=_IMPORT,
        ),
    )
}

JSON_LINES = ".jsonl"
"""The ending by which a file of own data is told from a name (json_lines/)."""


def is_own_data(split: str) -> bool:
    """Whether what `--split` was given is the path of a JSON-lines file, and no name."""
    return split.lower().endswith(JSON_LINES)


def spec_of(split: str) -> SplitSpec:
    """The data set of a name in `SPLITS`, or of the path of a JSON-lines file, which need not be there.

    InputError for what is neither.
    """
    if is_own_data(split):
        folder = str(own_path(split).parent)
        hint = "give the path of your file"
        return SplitSpec(name=split, folder=folder, by="", evaluation=(), images=folder, hint=hint)
    spec = SPLITS.get(split)
    if spec is None:
        raise InputError(
            f"--split: expected one of {', '.join(SPLITS)}, or the path of a {JSON_LINES} file of your own, found "
            f"{split!r}"
        )
    return spec


def own_path(split: str) -> Path:
    """The file of own data; `~` is the user's home. InputError for the home of a user that there is not."""
    try:
        return Path(split).expanduser()
    except RuntimeError as error:
        raise InputError(f"--split: expected a path, found {split!r}: {error}") from error


def plain_name(split: str) -> str:
    """A data set's name as titles and stores have it: of own data the file's, without its folders."""
    return own_path(split).name if is_own_data(split) else split


def short_name(split: str) -> str:
    """A data set's name as folders of runs begin: of own data the file's, without its ending too."""
    return (plain_name(split)[: -len(JSON_LINES)] or "own") if is_own_data(split) else split


def is_same_split(one: str, other: str) -> bool:
    """Whether two data sets are one: of a file of own data there are many paths."""
    if is_own_data(one) and is_own_data(other):
        return os.path.abspath(own_path(one)) == os.path.abspath(own_path(other))
    return one == other
