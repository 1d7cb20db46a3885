"""One data set checked: what is in it beside what is published of it, and all findings."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from semires.stages.data.checking.counts import PUBLISHED, SplitCounts, count_splits
from semires.stages.data.checking.findings import (
    Finding,
    Reader,
    compare_counts,
    find_dropped,
    find_repeated,
    find_shared,
    find_unread_splits,
    find_unread_words,
    find_unreadable,
)
from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset, Text
from semires.stages.data.splits import SPLITS, SplitSpec

# (what is being done, how much of it is done, of how much)
OnProgress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class DataCheck:
    """What was found of a data set. `counts` by split, train first; `published` None where nothing is."""

    name: str
    images: Path
    counts: dict[str, SplitCounts]
    published: dict[str, SplitCounts] | None
    findings: tuple[Finding, ...]

    @property
    def is_wrong(self) -> bool:
        """Whether anything is."""
        return any(finding.is_wrong for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self) | {"images": str(self.images), "is_wrong": self.is_wrong}


def find_specs(name: str, root: Path, images: Path | None = None) -> list[tuple[Path, SplitSpec, Path | None]]:
    """What a user means by a data set's name or a folder: the data root, data set and image folder of each.

    A name of `SPLITS` is looked for below `root`; images: the folder of COCO's where they are not there too. A folder
    has REFER's layout under any name, instances.json and one or more `refs(<by>).p`: each of these is a data set. Its
    images are in `images`, else in `images` in it, else where COCO's lie below its parent or below `root`.

    Each is to be given to `ReferDataset.load_spec`. Raises `InputError` where it is neither.
    """
    if name in SPLITS:
        return [(root, SPLITS[name], None if SPLITS[name].brings_images else images)]
    folder = Path(name).expanduser()
    if not folder.is_dir():
        raise InputError(
            f"expected one of {', '.join(SPLITS)}, a folder with instances.json and refs(<by>).p, or a .jsonl file, "
            f"found {name!r}; choose one, or check the path"
        )
    folder = folder.resolve()
    found = sorted(path.name for path in folder.glob("refs(*).p"))
    if not found:
        raise InputError(f"{folder}: expected a folder with instances.json and refs(<by>).p, found no refs(<by>).p")
    if images is None:
        below = [data / SplitSpec.images for data in (folder.parent, root)]
        images = next((place for place in (folder / "images", *below) if place.is_dir()), None)
    specs = [_spec_of(folder.name, file.removeprefix("refs(").removesuffix(").p")) for file in found]
    return [(folder.parent, spec, images) for spec in specs]


def _spec_of(folder: str, by: str) -> SplitSpec:
    """The data set of this folder's name where it is a known one; else one about which nothing is known."""
    for spec in SPLITS.values():
        if (spec.folder, spec.by) == (folder, by):
            return spec
    return SplitSpec(
        name=f"{folder} ({by})",
        folder=folder,
        by=by,
        evaluation=("val", "test", "testA", "testB"),
        shares_images=by == "google",
        hint="give its images with --coco-images",
    )


def check_dataset(
    dataset: ReferDataset,
    reader: Reader,
    *,
    text: Text = "raw",
    open_images: bool = False,
    on_progress: OnProgress | None = None,
) -> DataCheck:
    """Check a data set that was loaded.

    reader, text: the tokenizer of the model and the text that it is given. open_images: decode every image and mask
    too.
    """

    def counting(what: str) -> Callable[[int, int], None]:
        return lambda done, total: on_progress(what, done, total) if on_progress is not None else None

    spec, refs = dataset.spec, dataset.refs
    counts = count_splits(refs)
    known = [split for split in ("train", *spec.evaluation) if split in counts]
    counts = {split: counts[split] for split in [*known, *sorted(counts.keys() - set(known))]}
    published = PUBLISHED.get(spec.name)
    return DataCheck(
        name=spec.name,
        images=dataset.image_folder,
        counts=counts,
        published=published,
        findings=(
            *(() if published is None else compare_counts(counts, published)),
            *find_dropped(dataset.problems),
            *find_shared(refs, may_share_images=spec.shares_images),
            *(find_unreadable(dataset, counting("opening images")) if open_images else ()),
            *find_unread_splits(refs, spec.evaluation),
            *find_repeated(refs),
            *find_unread_words(refs, reader, text, counting("reading expressions of refs")),
        ),
    )
