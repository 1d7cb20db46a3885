"""RefCOCO-M (`moondream/refcoco-m`): refs of RefCOCO's val with new masks; a row an image, the picture in it.

`samples` of a row lists the refs: `id`, `category`, `sentences` (texts), `bbox` (x, y, width, height) and `mask`,
COCO's compressed run lengths.
"""

from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Any

from semires.stages.data.errors import InputError
from semires.stages.data.importing.coco_categories import COCO_CATEGORIES
from semires.stages.data.importing.collected import Collected
from semires.stages.data.importing.fields import name_field, numbers_field, same_field, texts_field
from semires.stages.data.importing.parquet_rows import read_rows
from semires.stages.data.importing.pictures import PictureFolder
from semires.stages.data.instances import field_of
from semires.stages.data.masks import parse_segmentation
from semires.stages.data.splits import SPLITS

COLUMNS = ("image", "image_id", "file_name", "samples")
_CATEGORY_IDS = {name: number for number, name in COCO_CATEGORIES.items()}


def read_refcoco_m(
    files: Sequence[Path], folder: Path, on_progress: Callable[[int, int], None] | None = None
) -> Collected:
    """The refs of `files`, their pictures written into `folder`; InputError that names the row where one contradicts
    the format."""
    found = Collected(categories=dict(COCO_CATEGORIES))
    pictures = PictureFolder(folder)
    for row in read_rows(files, COLUMNS, has_pictures=True, on_progress=on_progress):
        values, where = row.values, row.where
        image_id = field_of(values, "image_id", int, where)
        stem = PurePath(name_field(values, "file_name", where)).stem
        file_name, height, width = pictures.add(values["image"], stem, where)
        image = {"id": image_id, "file_name": file_name, "height": height, "width": width}
        found.add_image(image, where)
        for number, sample in enumerate(field_of(values, "samples", list, where)):
            _add(found, sample, image, f"{where}, sample {number + 1}")
    return found


def _add(found: Collected, sample: dict[str, Any], image: dict[str, Any], where: str) -> None:
    sample_id = field_of(sample, "id", int, where)
    if sample.get("image_id") is not None:
        same_field(sample, "image_id", image["id"], where, "sample")
    mask = {key: value for key, value in field_of(sample, "mask", dict, where).items() if key in ("size", "counts")}
    try:
        parse_segmentation(mask, image["height"], image["width"])
    except InputError as error:
        raise InputError(f"{where}, mask: {error}") from error
    # A binary column; what was parsed has no other characters than ASCII's.
    if isinstance(mask["counts"], bytes):
        mask["counts"] = mask["counts"].decode("ascii")
    category = field_of(sample, "category", str, where)
    category_id = _CATEGORY_IDS.get(category)
    if category_id is None:
        raise InputError(f"{where}: expected one of COCO's categories, found {category!r}; get the file again")
    texts = texts_field(sample, "sentences", where)
    ids = {"ann_id": sample_id, "image_id": image["id"], "category_id": category_id}
    found.add_annotation(
        {
            "id": sample_id,
            "image_id": image["id"],
            "category_id": category_id,
            "segmentation": mask,
            "bbox": numbers_field(sample, "bbox", where, count=4),
            "iscrowd": 0,
        },
        where,
    )
    sentences = [{"sent": text, "raw": text} for text in texts]
    split = SPLITS["refcoco-m"].evaluation[0]
    found.add_ref(
        {"ref_id": sample_id, **ids, "split": split, "sentences": sentences, "file_name": image["file_name"]}, where
    )
