"""gRefCOCO (`FudanCVL/gRefCOCO`): expressions that mean several objects, or nothing on the image.

`grefs(unc).json` lists records as REFER's, but with lists in `ann_id` and `category_id`, [-1] where there is no target
(`no_target`); `instances.json` beside it is COCO's. The authors' code (ReLA) leaves crowds out of the targets and reads
by expressions, so that refs without one do not count; so does this.
"""

import json
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.files.json_records import load_records
from semires.stages.data.importing.archive import MAX_INSTANCES, MAX_REFS, Archive, folder_of
from semires.stages.data.importing.collected import Collected, split_of
from semires.stages.data.instances import field_of
from semires.stages.data.refer import NO_TARGET
from semires.stages.data.splits import SPLITS

REFS = "grefs(unc).json"
FILES = (f"*{REFS}", "*instances.json")


def read_grefcoco(archive: Archive, aside: Path, instances: Path) -> Collected:
    """The refs of an archive, its instances.json copied to `instances`; aside: a folder for a file on the way.

    InputError where a file is missing, damaged or too large, or a record contradicts the format.
    """
    spec = SPLITS["grefcoco"]
    folder = folder_of(archive, REFS, spec.folder, {other.folder for other in SPLITS.values()} - {spec.folder})
    if folder not in archive.folders_with("instances.json"):
        raise InputError(f"{archive.source}: expected instances.json beside {REFS}, found none; get it too")
    instances.parent.mkdir(parents=True, exist_ok=True)
    archive.copy(folder, "instances.json", instances, MAX_INSTANCES)
    archive.copy(folder, REFS, aside / REFS, MAX_REFS)
    try:
        records = json.loads((aside / REFS).read_bytes())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{archive.source}: expected JSON in {REFS}, found none ({error}); get it again") from error
    if not isinstance(records, list):
        raise InputError(f"{archive.source}: expected a list in {REFS}, found a {type(records).__name__}")
    crowds = _crowds(instances, archive.source)
    found = Collected()
    for number, record in enumerate(records):
        _add(found, record, crowds, f"{archive.source}: {REFS}: ref {number}", spec.evaluation)
    return found


def _crowds(path: Path, source: Path) -> set[int]:
    crowds: set[int] = set()

    def see(_: int, record: Any) -> None:
        if isinstance(record, dict) and record.get("iscrowd") == 1 and type(record.get("id")) is int:
            crowds.add(record["id"])

    try:
        load_records(path, {"annotations": see})
    except (ValueError, RecursionError) as error:
        raise InputError(f"{source}: expected JSON in {path.name}, found none ({error}); get it again") from error
    return crowds


def _add(found: Collected, record: Any, crowds: set[int], where: str, evaluation: tuple[str, ...]) -> None:
    ref_id = field_of(record, "ref_id", int, where)
    split = split_of(field_of(record, "split", str, where), evaluation, where)
    targets = record.get("ann_id")
    targets = targets if isinstance(targets, list) else [targets]
    if not targets or not all(type(target) is int for target in targets):
        raise InputError(f"{where}: expected `ann_id` as a list of numbers, found {str(targets)[:80]}; get it again")
    has_none = targets == [NO_TARGET]
    if record.get("no_target") not in (None, has_none):
        raise InputError(
            f"{where}: expected `ann_id` [{NO_TARGET}] where `no_target` is true and nowhere else, found {targets} and "
            f"{record['no_target']}; get it again"
        )
    if not field_of(record, "sentences", list, where):
        found.left_out["refs: no expression (ref ids)"].append(str(ref_id))
        return
    left = [target for target in targets if target not in crowds]
    if len(left) < len(targets):
        kind = "targets: crowds, as in the authors' code (annotation ids)"
        found.left_out[kind] += [str(target) for target in targets if target in crowds]
    if not left:
        found.left_out["refs: no target but crowds (ref ids)"].append(str(ref_id))
        return
    found.add_ref({**record, "split": split, "ann_id": left}, where)
