"""An import from its source to the files in REFER's layout, which the reader then reads like any other's."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semires.stages.data.checking.counts import PUBLISHED, SplitCounts, count_splits
from semires.stages.data.checking.findings import compare_counts
from semires.stages.data.errors import InputError
from semires.stages.data.files.garbage import paused_garbage_collection
from semires.stages.data.files.hub import download_dataset, is_hub_name
from semires.stages.data.files.json_records import load_records
from semires.stages.data.files.pickles import load_refs_pickle
from semires.stages.data.importing import grefcoco, hub_refs, picture_refs, refcoco_m
from semires.stages.data.importing.archive import copy_refer_files, open_archive
from semires.stages.data.importing.collected import Collected
from semires.stages.data.importing.fields import numbers_field
from semires.stages.data.importing.parquet_rows import column_names, parquet_files
from semires.stages.data.importing.reviewed_list import Box, ReviewedList, clean, read_list
from semires.stages.data.importing.staging import (
    instances_file,
    put_in_place,
    refs_file,
    staging_folder,
    write_instances,
    write_refs,
)
from semires.stages.data.instances import read_instances
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import Ref, problem_of, read_refs
from semires.stages.data.splits import SPLITS, SplitSpec

OnRows = Callable[[int, int], None]
ARCHIVED = ("refcoco", "refcoco+", "refcocog", "refcocog-google")
# What a data set of the hub is, so that one is never written under another's name.
HUB_SPLITS = {
    "jxu124/refcoco": "refcoco",
    "jxu124/refcocoplus": "refcoco+",
    "jxu124/refcocog": "refcocog",
    "lmms-lab/refcoco": "refcoco-lmms",
    "lmms-lab/refcocoplus": "refcoco+-lmms",
    "lmms-lab/refcocog": "refcocog-lmms",
    "fudancvl/grefcoco": "grefcoco",
    "moondream/refcoco-m": "refcoco-m",
}


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import wrote: the data set's name, how many files are new, the counts of each split, and in a line each
    what was left out and what else is to be known."""

    name: str
    folder: Path
    num_files: int
    counts: dict[str, SplitCounts]
    lines: tuple[str, ...]


def import_data(
    source: str,
    split: str,
    root: Path,
    *,
    clean_lists: Sequence[Path] = (),
    overwrite: bool = False,
    on_progress: OnRows | None = None,
) -> ImportReport:
    """Write the data set at `source` below the data root, as the data set `split` or a variant of it.

    source: a zip or folder of lichengunc/refer or gRefCOCO, a parquet file or a folder of such, or a name on the
    Hugging Face hub.
    split: a name of `SPLITS`; copies that hold other than what is published go by a name of their own (`refcoco-lmms`,
    `refcoco-clean`), as which they are also asked for. clean_lists: reviewed lists of Ref-L4, whose wrong expressions
    are left out. on_progress: told rows done and rows in all.

    InputError where the source is none of these, contradicts its format or is not the data set named, and where a file
    is in the way that says something else.
    """
    if split not in SPLITS or split == "refshapes":
        names = ", ".join(name for name in SPLITS if name != "refshapes")
        raise InputError(f"--split: expected one of {names}, found {split!r}")
    for path in clean_lists:
        if not path.is_file():
            raise InputError(f"--clean-list: expected a file, found none at {path}; check the path")
    # All that can be refused is, before gigabytes are fetched.
    if is_hub_name(source):
        _check_hub_name(source, split, is_clean=bool(clean_lists))
    lists = [read_list(path) for path in clean_lists]
    place = _fetched(source, split)
    files = [] if split == "grefcoco" else parquet_files(place)
    kind = _kind_of(files[0]) if files else "grefs" if split == "grefcoco" else "archive"
    spec = _target(kind, split, is_clean=bool(clean_lists))
    with staging_folder(root, spec.name) as staging, paused_garbage_collection():
        refs_path, instances_path = refs_file(staging, spec), instances_file(staging, spec)
        if kind == "archive":
            base, lines = SPLITS[spec.name.removesuffix("-clean")], []
            with open_archive(place) as archive:
                copy_refer_files(archive, base.by, base.folder, refs_path, instances_path)
        else:
            lines = _stage_collected(_collect(kind, place, files, spec, staging, on_progress), spec, staging)
        found = _read_refs(refs_path, place)
        _refuse_another(found[0], spec, place)
        if lists:
            lines += _clean(refs_path, instances_path, lists)
            found = _read_refs(refs_path, place)
        counts, problems = _checked(*found, instances_path, place)
        others = [finding.text for finding in compare_counts(counts, PUBLISHED.get(spec.name, counts))]
        num_files = put_in_place(staging, root, overwrite=overwrite)
    return ImportReport(
        name=spec.name,
        folder=root / spec.folder,
        num_files=num_files,
        counts=counts,
        lines=(*lines, *problems, *others),
    )


def _collect(
    kind: str, place: Path, files: Sequence[Path], spec: SplitSpec, staging: Path, on_progress: OnRows | None
) -> Collected:
    """The refs of any other source; its pictures and files are staged."""
    if kind == "grefs":
        with open_archive(place) as archive, TemporaryDirectory(dir=staging) as aside:
            return grefcoco.read_grefcoco(archive, Path(aside), instances_file(staging, spec))
    if kind == "hub refs":
        return hub_refs.read_hub_refs(files, spec, on_progress)
    if kind == "picture refs":
        return picture_refs.read_picture_refs(files, spec, staging / spec.images, on_progress)
    return refcoco_m.read_refcoco_m(files, staging / spec.images, on_progress)


def _stage_collected(found: Collected, spec: SplitSpec, staging: Path) -> list[str]:
    """Write what was collected."""
    instances_path = instances_file(staging, spec)
    if not instances_path.exists():
        write_instances(instances_path, found.instances())
    write_refs(refs_file(staging, spec), found.refs)
    left_out = [f"left out: {len(ids):,} {what}: {_some(ids)}" for what, ids in found.left_out.items()]
    return [*left_out, *found.notes]


def _check_hub_name(source: str, split: str, *, is_clean: bool) -> None:
    """InputError where what a data set of the hub is called says that it cannot become `split`."""
    known = HUB_SPLITS.get(source.lower())
    if known is None:
        return
    if split not in (known, known.removesuffix("-lmms"), f"{known}-clean"):
        raise InputError(f"--split: expected {known} for {source}, found {split!r}")
    kinds = {"grefcoco": "grefs", "refcoco-m": "refcoco-m"}
    _target(kinds.get(known, "picture refs" if known.endswith("-lmms") else "hub refs"), split, is_clean=is_clean)


def _fetched(source: str, split: str) -> Path:
    """Where the source lies on this machine."""
    if not is_hub_name(source):
        if not Path(source).exists():
            raise InputError(
                f"expected a zip, a folder, a parquet file or a name on the Hugging Face hub such as jxu124/refcoco, "
                f"found none at {source}; check the path"
            )
        return Path(source)
    return download_dataset(source, grefcoco.FILES if split == "grefcoco" else ("*.parquet",))


def _kind_of(file: Path) -> str:
    """Which of the layouts in parquet a file has, by its columns."""
    names = column_names(file)
    for kind, columns in (
        ("hub refs", hub_refs.COLUMNS),
        ("picture refs", picture_refs.COLUMNS),
        ("refcoco-m", refcoco_m.COLUMNS),
    ):
        if names.issuperset(columns):
            return kind
    raise InputError(
        f"{file}: expected the columns of jxu124/refcoco, lmms-lab/RefCOCO or moondream/refcoco-m, found "
        f"{', '.join(sorted(names)) or 'none'}"
    )


def _target(kind: str, split: str, *, is_clean: bool) -> SplitSpec:
    """The data set that is written: what is not what is published gets a name of its own."""
    name = split
    if kind == "picture refs":
        name = split if split.endswith("-lmms") else f"{split}-lmms"
    elif is_clean and not split.endswith("-clean"):
        name = f"{split}-clean"
    if is_clean and kind not in ("archive", "hub refs"):
        raise InputError("--clean-list: expected refer's archive or parquet as jxu124's to clean, found another source")
    fitting = {
        "archive": set(ARCHIVED),
        "grefs": {"grefcoco"},
        "hub refs": set(ARCHIVED),
        "picture refs": {known for known in SPLITS if known.endswith("-lmms")},
        "refcoco-m": {"refcoco-m"},
    }[kind]
    if is_clean:
        fitting = {known for known in SPLITS if known.removesuffix("-clean") in fitting and known.endswith("-clean")}
    if name not in fitting:
        what = "this source with --clean-list" if is_clean else "this source"
        raise InputError(f"--split: expected {', '.join(sorted(fitting))} for {what}, found {split!r}")
    return SPLITS[name]


def _refuse_another(refs: list[Ref], spec: SplitSpec, source: Path) -> None:
    """InputError where these are the refs of another data set: names of folders tell nothing."""
    counts = count_splits(refs)
    for name, published in PUBLISHED.items():
        if name != spec.name.removesuffix("-clean") and counts and counts.items() <= published.items():
            raise InputError(
                f"{source}: expected the data set that --split names, {spec.name}, found as many refs, images and "
                f"expressions in {', '.join(counts)} as {name} has; is it that one?"
            )


def _read_refs(refs_path: Path, source: Path) -> tuple[list[Ref], list[int], list[int]]:
    """As `read_refs`, of what was staged; InputError, which names the source, where the reader cannot read it."""
    try:
        return read_refs(refs_path)
    except InputError as error:
        raise _of_source(error, refs_path.parent, source) from error


def _of_source(error: InputError, staged: Path, source: Path) -> InputError:
    return InputError(str(error).replace(f"{staged}/", f"{source}: "))


def _clean(refs_path: Path, instances_path: Path, lists: Sequence[ReviewedList]) -> list[str]:
    """Write refs anew without what the lists call wrong."""
    refs = load_refs_pickle(refs_path)
    found = clean(refs, _boxes(instances_path, {ref["ann_id"] for ref in refs if type(ref["ann_id"]) is int}), lists)
    write_refs(refs_path, found.refs)
    by_split = ", ".join(f"{number:,} of {split}" for split, number in found.num_wrong.items()) or "none"
    lines = [f"left out: {sum(found.num_wrong.values()):,} expressions that the lists call wrong: {by_split}"]
    if found.lost_refs:
        lines.append(f"left out: {len(found.lost_refs)} refs without any other: {_some(found.lost_refs)}")
    if found.num_unknown:
        lines.append(f"{found.num_unknown:,} wrong expressions of the lists are not in this data set")
    return lines


def _boxes(path: Path, ann_ids: set[int]) -> dict[int, Box]:
    boxes: dict[int, Box] = {}

    def see(_: int, record: Any) -> None:
        ann_id = record.get("id") if isinstance(record, dict) else None
        if type(ann_id) is int and ann_id in ann_ids and record.get("bbox") is not None:
            x, y, width, height = numbers_field(record, "bbox", f"{path.name}: annotation {ann_id}", count=4)
            boxes[ann_id] = (x, y, width, height)

    try:
        load_records(path, {"annotations": see})
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: expected COCO's JSON, found a damaged file ({error}); get it again") from error
    return boxes


def _checked(
    refs: list[Ref], with_empty: list[int], with_single: list[int], instances_path: Path, source: Path
) -> tuple[dict[str, SplitCounts], list[str]]:
    """The counts of each split, and in lines what the reader will leave out; InputError, which names the source, where
    it cannot read what is to be written."""
    try:
        ann_ids = {ann_id for ref in refs for ann_id in ref.ann_ids}
        instances = read_instances(instances_path, ann_ids, {ref.image_id for ref in refs})
    except InputError as error:
        raise _of_source(error, instances_path.parent, source) from error
    names = {image.file_name for image in instances.images.values()}
    dropped = defaultdict(list)
    for ref in refs:
        dropped[problem_of(ref, instances, names)].append(ref.ref_id)
    dropped.pop(None, None)
    lost = {ref_id for ids in dropped.values() for ref_id in ids}
    kinds: dict[str, Any] = {str(name): tuple(ids) for name, ids in dropped.items()}
    problems = ReferProblems(
        **kinds,
        empty_expressions=tuple(ref_id for ref_id in with_empty if ref_id not in lost),
        single_text=tuple(ref_id for ref_id in with_single if ref_id not in lost),
    )
    order = {split: number for number, split in enumerate(("train", "val", "testA", "testB", "test"))}
    counts = sorted(count_splits(refs).items(), key=lambda of_split: (order.get(of_split[0], len(order)), of_split[0]))
    return dict(counts), [f"written as it is, but when read: {line}" for line in problems.summary()]


def _some(ids: Sequence[object]) -> str:
    return ", ".join(map(str, ids[:20])) + (", …" if len(ids) > 20 else "")
