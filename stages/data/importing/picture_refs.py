"""Parquet as `lmms-lab/RefCOCO`, `RefCOCOplus` and `RefCOCOg` have it: evaluation splits, the picture in every row.

A row is a ref: its picture, its expressions (`answer`), its box, and its outline as **one** flat polygon
(`segmentation`), where COCO's annotation may have several. `file_name` is that of REFER's record: the image's name with
a number of the ref after it. There are no ids but `question_id`, which is kept; refs and annotations are numbered here.

The copies' `val` holds more than REFER's: the rows of Google's `val` too (8,811 of RefCOCO where unc's has 3,811, 7,573
of RefCOCOg where umd's has 2,573); nothing in a row says which it is of. Their `test` of RefCOCO is Google's alone.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath

from semires.stages.data.errors import InputError
from semires.stages.data.importing.collected import SPLIT_WORDS, Collected
from semires.stages.data.importing.fields import name_field, numbers_field, texts_field
from semires.stages.data.importing.parquet_rows import Row, read_rows
from semires.stages.data.importing.pictures import PictureFolder
from semires.stages.data.instances import field_of
from semires.stages.data.masks import parse_segmentation
from semires.stages.data.splits import SplitSpec

COLUMNS = ("question_id", "image", "answer", "segmentation", "bbox", "file_name")
OPTIONAL = ("iscrowd",)
# Google's test split of RefCOCO and RefCOCO+, whose own testA and testB it is none of.
GOOGLE_TEST = "google-test"
REFERS_VAL = {"refcoco-lmms": 3_811, "refcoco+-lmms": 3_805, "refcocog-lmms": 2_573}
_COCO_NAME = re.compile(r"(COCO_[a-z]+\d{4}_(\d{12}))(?:_\d+)?")
NO_CATEGORY = 0


def read_picture_refs(
    files: Sequence[Path], spec: SplitSpec, folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Collected:
    """The refs of `files`, their pictures written into `folder`; InputError that names the row where one contradicts
    the format."""
    found = Collected(categories={NO_CATEGORY: "unknown"})
    pictures = PictureFolder(folder)
    for number, row in enumerate(read_rows(files, COLUMNS, OPTIONAL, has_pictures=True, on_progress=on_progress)):
        _add(found, row, number + 1, spec, pictures)
    num_val = sum(ref["split"] == "val" for ref in found.refs)
    refers = REFERS_VAL.get(spec.name, num_val)
    if num_val > refers:
        found.notes.append(
            f"val: {num_val:,} refs, REFER's has {refers:,}: this copy mixes Google's val into it, so that scores on "
            "its val are not comparable with published ones"
        )
    return found


def _add(found: Collected, row: Row, number: int, spec: SplitSpec, pictures: PictureFolder) -> None:
    values, where = row.values, row.where
    question_id = field_of(values, "question_id", str, where)
    split = _split(row, spec)
    stem, image_id = _image_of(name_field(values, "file_name", where), where)
    outline = numbers_field(values, "segmentation", where)
    file_name, height, width = pictures.add(values["image"], stem, where)
    try:
        mask = parse_segmentation([outline], height, width)
    except InputError as error:
        raise InputError(f"{where}, segmentation: {error}") from error
    found.add_image({"id": image_id, "file_name": file_name, "height": height, "width": width}, where)
    if mask is None:
        found.left_out["refs: no outline of three points (question ids)"].append(question_id)
        return
    annotation = {
        "id": number,
        "image_id": image_id,
        "category_id": NO_CATEGORY,
        "segmentation": [outline],
        "bbox": numbers_field(values, "bbox", where, count=4),
        "iscrowd": int(values.get("iscrowd") or 0),
    }
    found.add_annotation(annotation, where)
    # The copies give one text of each sentence; the reader lets `sent` stand for `raw` too.
    sentences = [{"sent": text, "raw": text} for text in texts_field(values, "answer", where)]
    record = {
        "ref_id": number,
        "ann_id": number,
        "image_id": image_id,
        "category_id": NO_CATEGORY,
        "split": split,
        "sentences": sentences,
        "file_name": values["file_name"],
        "question_id": question_id,
    }
    found.add_ref(record, where)


def _split(row: Row, spec: SplitSpec) -> str:
    name = SPLIT_WORDS.get(row.split, row.split)
    if name == "test" and "test" not in spec.evaluation:
        return GOOGLE_TEST
    if name not in spec.evaluation:
        raise InputError(
            f"{row.where}: expected a file named after its split ({', '.join(spec.evaluation)}), such as "
            f"val-00000-of-00004.parquet, found {row.split or 'none'}; rename it, or is --split another data set?"
        )
    return name


def _image_of(file_name: str, where: str) -> tuple[str, int]:
    """The image's name without its ending, and its id, which is in the name."""
    coco = _COCO_NAME.fullmatch(PurePath(file_name).stem)
    if coco is None:
        raise InputError(
            f"{where}: expected `file_name` like COCO_train2014_000000581857_16.jpg, which has the image's id, found "
            f"{file_name!r}; get the file again"
        )
    return coco[1], int(coco[2])
