"""COCO's instances.json: the images, annotations and categories that the refs of a data set name.

The file lists every object of COCO's train set, some hundred thousand; only the records that are asked for are checked
and kept, so that a damaged one nobody refers to does no harm.
"""

import reprlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, TypeVar

from semires.stages.data.errors import InputError
from semires.stages.data.files.json_records import load_records
from semires.stages.data.masks import Segmentation, parse_segmentation

# A JPEG side has 16 bits; this also keeps a mask's pixel count within what pycocotools can count.
MAX_SIDE = 65_535

FieldT = TypeVar("FieldT")


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image as instances.json knows it: a file name without folders, and its size in pixels."""

    file_name: str
    height: int
    width: int


@dataclass(frozen=True, slots=True)
class AnnotationRecord:
    """An annotated object: the image it is on and its mask, None where no polygon has three points."""

    image_id: int
    mask: Segmentation | None


@dataclass(frozen=True)
class Instances:
    """What was asked of instances.json, each by its id; `categories` holds the names of all categories."""

    images: dict[int, ImageRecord]
    annotations: dict[int, AnnotationRecord]
    categories: dict[int, str]


def read_instances(path: Path, annotation_ids: set[int], image_ids: set[int]) -> Instances:
    """Read COCO's instances.json at `path`; only the annotations and images named are checked and kept.

    Ids without a record are simply not in the result; an annotation's mask is None too where its image is not asked
    for. Raises `InputError` when the file is no JSON, or a record that is asked for contradicts COCO's format, leads
    out of the image folder, has a mask that does not fit its image or the id of another.
    """
    images: dict[int, ImageRecord] = {}
    annotations: dict[int, AnnotationRecord] = {}
    early: list[tuple[int, Any]] = []  # annotations that the file lists before its images

    def see_image(index: int, record: Any) -> None:
        image_id = _id_of(path, "images", index, record)
        if image_id in image_ids:
            where = f"{path}: images[{index}]"
            image = _image(record, where)
            if images.setdefault(image_id, image) != image:
                raise InputError(
                    f"{where}: expected an id of its own, found {image_id} a second time with another name or size; "
                    "fix the file"
                )

    def see_annotation(index: int, record: Any) -> None:
        ann_id = _id_of(path, "annotations", index, record)
        if ann_id not in annotation_ids:
            return
        if not images:
            early.append((index, record))
            return
        where = f"{path}: annotations[{index}]"
        if ann_id in annotations:
            raise InputError(f"{where}: expected an id of its own, found {ann_id} a second time; fix the file")
        annotations[ann_id] = _annotation(record, images, where)

    try:
        content = load_records(path, {"images": see_image, "annotations": see_annotation})
    except InputError:
        raise
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: expected COCO's JSON, found a damaged file ({error}); download it again") from error
    except OSError as error:
        raise InputError(f"{path}: expected COCO's JSON, could not read it ({error}); check the path") from error
    for name in ("images", "annotations"):
        field_of(content, name, list, str(path))
    if images:
        for index, record in early:
            see_annotation(index, record)

    categories = {}
    for index, record in enumerate(field_of(content, "categories", list, str(path))):
        where = f"{path}: categories[{index}]"
        categories[field_of(record, "id", int, where)] = field_of(record, "name", str, where)
    return Instances(images, annotations, categories)


def _image(record: Any, where: str) -> ImageRecord:
    height, width = field_of(record, "height", int, where), field_of(record, "width", int, where)
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise InputError(f"{where}: expected sides of 1 to {MAX_SIDE} pixels, found {height}x{width}; fix it")
    file_name = field_of(record, "file_name", str, where)
    if not is_plain_name(file_name):
        raise InputError(
            f"{where}: expected a plain file name in the image folder, found {file_name!r}; remove its folders"
        )
    return ImageRecord(file_name, height, width)


def _annotation(record: Any, images: dict[int, ImageRecord], where: str) -> AnnotationRecord:
    image_id = field_of(record, "image_id", int, where)
    image = images.get(image_id)
    if image is None:
        return AnnotationRecord(image_id, None)
    try:
        return AnnotationRecord(image_id, parse_segmentation(record.get("segmentation"), image.height, image.width))
    except InputError as error:
        raise InputError(f"{where} (id {record['id']}): {error}") from error


def _id_of(path: Path, name: str, index: int, record: Any) -> int:
    # The usual case first: to name the place of each of some hundred thousand records takes longer than to read them.
    if type(record) is dict and type(record.get("id")) is int:
        return int(record["id"])
    return field_of(record, "id", int, f"{path}: {name}[{index}]")


def field_of(record: Any, key: str, kind: type[FieldT], where: str) -> FieldT:
    """`record[key]`, which must be of exactly this type (a bool is no int).

    `where` names the record in the `InputError` that is raised for a record that is no dict, and for a value that is
    missing or of another type.
    """
    if not isinstance(record, dict):
        raise InputError(f"{where}: expected a dict with `{key}`, found a {type(record).__name__}; fix the file")
    value = record.get(key)
    if type(value) is not kind:
        raise InputError(
            f"{where}: expected `{key}` as {kind.__name__}, found {reprlib.repr(value)}; "
            "is this file of a REFER data set and whole?"
        )
    return value


def is_plain_name(name: str) -> bool:
    """Whether a file name stays in the folder it is looked for in, on any system."""
    parts = (PurePosixPath(name).name, PureWindowsPath(name).name)
    return parts == (name, name) and name not in ("", ".", "..") and "\0" not in name
