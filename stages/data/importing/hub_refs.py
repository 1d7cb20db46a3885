"""Parquet as `jxu124/refcoco`, `refcocoplus` and `refcocog` of the Hugging Face hub have it: a row a ref, no pictures.

A row has REFER's record of the ref, and as JSON text the record of its annotation (`raw_anns`) and of its image
(`raw_image_info`) in COCO's instances.json; `bbox` is x1, y1, x2, y2 (x, y, width, height is taken as well).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.importing.coco_categories import COCO_CATEGORIES
from semires.stages.data.importing.collected import Collected, split_of
from semires.stages.data.importing.fields import json_field, name_field, numbers_field, same_field, size_field
from semires.stages.data.importing.parquet_rows import Row, read_rows
from semires.stages.data.instances import field_of
from semires.stages.data.masks import parse_segmentation
from semires.stages.data.splits import SplitSpec

COLUMNS = ("ref_id", "ann_id", "image_id", "category_id", "split", "sentences", "raw_anns", "raw_image_info")
OPTIONAL = ("bbox", "file_name")
BOX_TOLERANCE = 1.0  # pixels between a row's box and its annotation's, which it was computed from


def read_hub_refs(
    files: Sequence[Path], spec: SplitSpec, on_progress: Callable[[int, int], None] | None = None
) -> Collected:
    """The refs of `files`; InputError that names the row where one contradicts the format or itself."""
    found = Collected(categories=dict(COCO_CATEGORIES))
    for row in read_rows(files, COLUMNS, OPTIONAL, on_progress=on_progress):
        _add(found, row, spec)
    return found


def _add(found: Collected, row: Row, spec: SplitSpec) -> None:
    values, where = row.values, row.where
    image_id, ann_id = (field_of(values, key, int, where) for key in ("image_id", "ann_id"))
    image, annotation = json_field(values, "raw_image_info", where), json_field(values, "raw_anns", where)
    same_field(image, "id", image_id, where, "raw_image_info")
    same_field(annotation, "id", ann_id, where, "raw_anns")
    same_field(annotation, "image_id", image_id, where, "raw_anns")
    if found.add_image(image, where):
        size_field(image, where)
        name_field(image, "file_name", where)
    if found.add_annotation(annotation, where):
        try:
            parse_segmentation(annotation.get("segmentation"), image["height"], image["width"])
        except InputError as error:
            raise InputError(f"{where}, raw_anns: {error}") from error
        _check_box(values, annotation, where)
    record: dict[str, Any] = {
        "ref_id": field_of(values, "ref_id", int, where),
        "ann_id": ann_id,
        "image_id": image_id,
        "category_id": field_of(values, "category_id", int, where),
        "split": split_of(field_of(values, "split", str, where), spec.evaluation, where),
        "sentences": [_sentence(sentence, where) for sentence in field_of(values, "sentences", list, where)],
        "file_name": values.get("file_name") or image["file_name"],
    }
    record["sent_ids"] = [sentence["sent_id"] for sentence in record["sentences"] if "sent_id" in sentence]
    found.add_ref(record, where)


def _sentence(sentence: Any, where: str) -> dict[str, Any]:
    field_of(sentence, "sent", str, f"{where}, sentences")
    # Columns that a row lacks are None in parquet; REFER's records leave them out.
    return {key: value for key, value in sentence.items() if value is not None}


def _check_box(values: dict[str, Any], annotation: dict[str, Any], where: str) -> None:
    """The row's box is made of its annotation's: where it is another one, two records were joined wrongly."""
    if values.get("bbox") is None or "bbox" not in annotation:
        return
    box = numbers_field(values, "bbox", where, count=4)
    x, y, width, height = numbers_field(annotation, "bbox", f"{where}, raw_anns", count=4)
    corners, sides = [x, y, x + width, y + height], [x, y, width, height]
    if not any(
        all(abs(a - b) <= BOX_TOLERANCE for a, b in zip(box, expected, strict=True)) for expected in (corners, sides)
    ):
        raise InputError(
            f"{where}: expected `bbox` {corners} (x1, y1, x2, y2) as raw_anns has it, found {box}; the row joins two "
            "records that do not belong together: get the file again"
        )
