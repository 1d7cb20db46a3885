"""An import from its source to the files in REFER's layout, which the reader then reads like any other's."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from semires.stages.data.checking.counts import PUBLISHED, SplitCounts, count_splits
from semires.stages.data.checking.findings import compare_counts
from semires.stages.data.errors import InputError
from semires.stages.data.garbage import paused_garbage_collection
from semires.stages.data.hub import download_dataset, is_hub_name
from semires.stages.data.importing import grefcoco, hub_refs, picture_refs, refcoco_m
from semires.stages.data.importing.archive import copy_refer_files, open_archive
from semires.stages.data.importing.collected import Collected
from semires.stages.data.importing.parquet_rows import column_names, parquet_files
from semires.stages.data.importing.reviewed_list import Box, clean
from semires.stages.data.importing.staging import (
    instances_file,
    put_in_place,
    refs_file,
    staging_folder,
    write_instances,
    write_refs,
)
from semires.stages.data.instances import read_instances
from semires.stages.data.json_records import load_records
from semires.stages.data.pickles import load_refs_pickle
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import problem_of, read_refs
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
    place = _fetched(source, split)
    files = [] if split == "grefcoco" else parquet_files(place)
    kind = _kind_of(files[0]) if files else "grefs" if split == "grefcoco" else "archive"
    spec = _target(kind, split, is_clean=bool(clean_lists))
    with staging_folder(root, spec.name) as staging, paused_garbage_collection():
        if kind == "archive":
            lines = _stage_archive(place, spec, staging, clean_lists)
        else:
            lines = _stage_collected(
                _collect(kind, place, files, spec, staging, on_progress), spec, staging, clean_lists
            )
        counts, problems = _checked(refs_file(staging, spec), instances_file(staging, spec), place)
        others = [finding.text for finding in compare_counts(counts, PUBLISHED.get(spec.name, counts))]
        num_files = put_in_place(staging, root, overwrite=overwrite)
    return ImportReport(
        name=spec.name,
        folder=root / spec.folder,
        num_files=num_files,
        counts=counts,
        lines=(*lines, *problems, *others),
    )


def _stage_archive(place: Path, spec: SplitSpec, staging: Path, clean_lists: Sequence[Path]) -> list[str]:
    """Copy refer's own files, whose bytes stay as they are but for what the lists call wrong."""
    refs_path, instances_path = refs_file(staging, spec), instances_file(staging, spec)
    base = SPLITS[spec.name.removesuffix("-clean")]
    with open_archive(place) as archive:
        copy_refer_files(archive, base.by, base.folder, refs_path, instances_path)
    if not clean_lists:
        return []
    refs, lines = _cleaned(load_refs_pickle(refs_path), _boxes(instances_path), clean_lists)
    write_refs(refs_path, refs)
    return lines


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


def _stage_collected(found: Collected, spec: SplitSpec, staging: Path, clean_lists: Sequence[Path]) -> list[str]:
    """Write what was collected, without what the lists call wrong."""
    lines = [f"left out: {len(ids):,} {what}: {_some(ids)}" for what, ids in found.left_out.items()]
    refs = found.refs
    if clean_lists:
        refs, cleaned = _cleaned(refs, _boxes_of(found.annotations.values()), clean_lists)
        lines += cleaned
    instances_path = instances_file(staging, spec)
    if not instances_path.exists():
        write_instances(instances_path, found.instances())
    write_refs(refs_file(staging, spec), refs)
    return [*lines, *found.notes]


def _fetched(source: str, split: str) -> Path:
    """Where the source lies on this machine."""
    if not is_hub_name(source):
        if not Path(source).exists():
            raise InputError(
                f"expected a zip, a folder, a parquet file or a name on the Hugging Face hub such as jxu124/refcoco, "
                f"found none at {source}; check the path"
            )
        return Path(source)
    known = HUB_SPLITS.get(source.lower())
    if known is not None and split not in (known, known.removesuffix("-lmms"), f"{known}-clean"):
        raise InputError(f"--split: expected {known} for {source}, found {split!r}")
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


def _cleaned(
    refs: list[dict[str, Any]], boxes: dict[int, Box], lists: Sequence[Path]
) -> tuple[list[dict[str, Any]], list[str]]:
    found = clean(refs, boxes, lists)
    by_split = ", ".join(f"{number:,} of {split}" for split, number in found.num_wrong.items()) or "none"
    lines = [f"left out: {sum(found.num_wrong.values()):,} expressions that the lists call wrong: {by_split}"]
    if found.lost_refs:
        lines.append(f"left out: {len(found.lost_refs)} refs without any other: {_some(found.lost_refs)}")
    if found.num_unknown:
        lines.append(f"{found.num_unknown:,} wrong expressions of the lists are not in this data set")
    return found.refs, lines


def _boxes(path: Path) -> dict[int, Box]:
    boxes: dict[int, Box] = {}

    def see(_: int, record: Any) -> None:
        if isinstance(record, dict) and type(record.get("id")) is int:
            boxes.update(_boxes_of([record]))

    try:
        load_records(path, {"annotations": see})
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: expected COCO's JSON, found a damaged file ({error}); get it again") from error
    return boxes


def _boxes_of(annotations: Iterable[dict[str, Any]]) -> dict[int, Box]:
    return {
        record["id"]: tuple(record["bbox"])
        for record in annotations
        if isinstance(record.get("bbox"), list) and len(record["bbox"]) == 4
    }


def _checked(refs_path: Path, instances_path: Path, source: Path) -> tuple[dict[str, SplitCounts], list[str]]:
    """The counts of each split, and in lines what the reader will leave out; InputError, which names the source, where
    it cannot read what is to be written."""
    try:
        refs, with_empty, with_single = read_refs(refs_path)
        ann_ids = {ann_id for ref in refs for ann_id in ref.ann_ids}
        instances = read_instances(instances_path, ann_ids, {ref.image_id for ref in refs})
    except InputError as error:
        raise InputError(str(error).replace(f"{refs_path.parent}/", f"{source}: ")) from error
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
