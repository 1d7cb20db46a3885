"""COCO's JSON: SA-1B, lists of results, and files of many images, told apart by what they hold.

    {"image": {"image_id", "height", "width", "file_name"},    SA-1B: one image a file; also what export.py writes,
     "annotations": [...]}                                      with the store's manifest as "info"
    [...]                                                       segment-anything's amg.py --convert-to-rle: one image a
                                                                file, which the file is named after
    [{"image_id", "score", ...}, ...]                           COCO's results: many images; the score is the predicted
                                                                IoU, the size that of the run lengths
    {"images": [{"id", "height", "width", "file_name"}, ...],   COCO's and LVIS' data sets: many images, those without
     "annotations": [{"image_id", ...}, ...]}                   annotations included; LVIS names files by "coco_url"

Annotations are those of annotations.py. Which image they are of is told by the records, by a file's name only where
they say nothing. Files of many images have them in no order, and as objects they take many times the file's size: they
are read record by record, checked, and kept as runs in a temporary file, from which an image's are read together.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile
from typing import Any

import numpy as np

from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.annotations import ParsedMask, parse_annotation, stated_size
from semires.cache.interchange.files import (
    bad_file,
    check_packed_bytes,
    list_files,
    name_below,
    no_json,
    parse_image_id,
    parse_size,
    read_json,
    shown,
)
from semires.cache.interchange.found import Found, FoundImage, Request
from semires.cache.interchange.known_images import KnownImages, number_in
from semires.cache.interchange.packing import candidates_of, pack_runs
from semires.cache.schema import Manifest

_LAYOUTS = 'SA-1B\'s {"image": {...}, "annotations": [...]}, COCO\'s {"images": [...], "annotations": [...]}, or a list'

# Bytes of masks of files of many images that stay in memory.
_SPOOLED = 2**26

_NUM_SCORES = 4


def look_through(request: Request) -> Found:
    """The images of all JSON files of the source; see `importing.import_masks`."""
    images: list[FoundImage] = []
    left_out: list[str] = []
    manifests = _Manifests()
    masks = _Masks()
    request.resources.callback(masks.close)
    for path in list_files(request.source, ".json"):
        contents = _Contents(path, request.images, masks)
        content = _read(request, contents)
        if isinstance(content, dict) and not {"image", "images", "annotations"} & content.keys():
            left_out.append(f"{path}: no masks, it has no key image, images or annotations")
            continue
        manifests.see(content)
        found = contents.found(content, name_below(path, request.source))
        images += found.images
        left_out += found.left_out
    return Found(images=images, left_out=left_out, manifest=manifests.common())


def _read(request: Request, contents: _Contents) -> Any:
    """What is in a file but for the records, which `contents` has seen."""
    visits = {"images": contents.see_image, "annotations": contents.see_annotation}
    try:
        content = request.load_records(contents.path, visits, contents.see_result)
        if contents.is_behind:
            contents.begin_again()
            request.load_records(contents.path, {"annotations": contents.see_annotation})
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise no_json(contents.path, error) from error
    return content


class _Manifests:
    """The manifest that all files carry as "info"."""

    def __init__(self) -> None:
        self._common: object = None
        self._is_common = True

    def see(self, content: object) -> None:
        info = content.get("info") if isinstance(content, dict) and "image" in content else None
        self._is_common &= self._common in (None, info) and isinstance(info, dict)
        self._common = info

    def common(self) -> Manifest | None:
        if not self._is_common or not isinstance(self._common, dict):
            return None
        try:
            return Manifest.from_attributes(self._common)
        except StoreError:
            return None  # another program's info, or one that somebody changed


class _Masks:
    """Masks by file and image, in a temporary file where they are many: each its scores and point, then its runs."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(max_size=_SPOOLED)  # noqa: SIM115  (closed by whoever made it)
        self._places: dict[tuple[Path, int], array[int]] = {}

    def add(self, path: Path, image_id: int, mask: ParsedMask) -> None:
        scores = np.array([mask.predicted_iou, mask.stability_score, *mask.point_xy])
        places = self._places.setdefault((path, image_id), array("q"))
        places.extend((self._file.seek(0, 2), len(mask.runs)))
        self._file.write(scores.tobytes() + mask.runs.astype(np.int32).tobytes())

    def count(self, path: Path, image_id: int) -> int:
        return len(self._places.get((path, image_id), ())) // 2

    def read(self, path: Path, image_id: int) -> list[ParsedMask]:
        """Those of an image, in the file's order."""
        places = self._places.get((path, image_id), array("q"))
        found = []
        for start, num_runs in zip(places[0::2], places[1::2], strict=True):
            self._file.seek(start)
            iou, stability, x, y = np.frombuffer(self._file.read(8 * _NUM_SCORES)).tolist()
            runs = np.frombuffer(self._file.read(4 * num_runs), np.int32).astype(np.int64)
            found.append(ParsedMask(runs=runs, predicted_iou=iou, stability_score=stability, point_xy=(x, y)))
        return found

    def close(self) -> None:
        self._file.close()


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image of a file of many."""

    where: str
    """Where the file speaks of it first."""
    ours: int | None
    """Its id among the known images; None where it is none of them."""
    size: tuple[int, int]
    file_name: str | None = None


class _Contents:
    """What is seen of one file as it is read."""

    def __init__(self, path: Path, known: KnownImages, masks: _Masks) -> None:
        self.path = path
        self.is_behind = False
        """Whether annotations were seen before the images that they are of."""
        self._known, self._masks = known, masks
        self._images: dict[int, _Image] = {}
        self._first: dict[int, int] = {}  # image id -> index of its first annotation
        self._num_without_id = 0

    def begin_again(self) -> None:
        """The annotations are read a second time, now that the images are known."""
        self._num_without_id = 0

    def see_image(self, index: int, record: object) -> None:
        """An element of "images"."""
        where = f"image {index}"
        if not isinstance(record, dict):
            raise bad_file(self.path, where, "an object with id, height and width", shown(record))
        image_id = parse_image_id(self.path, where, record.get("id"), "id")
        if image_id in self._images:
            raise bad_file(
                self.path, where, "an id of its own", f"{image_id}, which {self._images[image_id].where} has"
            )
        size = parse_size(self.path, where, record.get("height"), record.get("width"))
        file_name = _file_name(self.path, where, record)
        ours = self._known.of_record(self.path, where, image_id, file_name)
        self._images[image_id] = _Image(where=where, ours=ours, size=size, file_name=file_name)

    def see_annotation(self, index: int, record: object) -> None:
        """An element of "annotations"."""
        image_id = self._image_id(index, record)
        if image_id is None:
            return
        if not self._images:
            self.is_behind = True
        elif image_id in self._images:
            self._keep(index, image_id, record)

    def see_result(self, index: int, record: object) -> None:
        """An element of the list that the file is."""
        image_id = self._image_id(index, record)
        if image_id is None:
            return
        if image_id not in self._images:
            where = f"annotation {index}"
            size = parse_size(self.path, where, *stated_size(self.path, where, record))
            ours = self._known.of_record(self.path, where, image_id, None)
            self._images[image_id] = _Image(where=where, ours=ours, size=size)
        self._keep(index, image_id, record)

    def _image_id(self, index: int, record: object) -> int | None:
        """The annotation's image id; None where it has none."""
        where = f"annotation {index}"
        if not isinstance(record, dict):
            raise bad_file(self.path, where, "an annotation with a segmentation", shown(record))
        if "image_id" not in record:
            self._num_without_id += 1
            return None
        image_id = parse_image_id(self.path, where, record["image_id"])
        self._first.setdefault(image_id, index)
        return image_id

    def _keep(self, index: int, image_id: int, record: object) -> None:
        image = self._images[image_id]
        if image.ours is not None:
            mask = parse_annotation(self.path, f"annotation {index}", record, image.size, is_made_of_mask=False)
            self._masks.add(self.path, image_id, mask)

    def found(self, content: object, name: str) -> Found:
        """The images of the file, by all that was seen and what else is in it; `name` is the file's."""
        if isinstance(content, list):
            return self._of_many() if self._images else self._of_amg(name)
        if not isinstance(content, dict) or isinstance(content.get("image"), dict) == ("images" in content):
            raise bad_file(self.path, "", _LAYOUTS, shown(content))
        if not isinstance(content.get("annotations"), list):
            raise bad_file(self.path, "annotations", "a list", shown(content.get("annotations")))
        return self._of_many() if "images" in content else self._of_sa1b(content["image"])

    def _of_sa1b(self, image: dict[str, Any]) -> Found:
        path = self.path
        image_id = parse_image_id(path, "image", image.get("image_id"))
        size = parse_size(path, "image", image.get("height"), image.get("width"))
        file_name = _file_name(path, "image", image)
        for other, index in self._first.items():
            if other != image_id:
                expected = f"the image_id of the file's image, {image_id}"
                raise bad_file(path, f"annotation {index}", expected, f"{other}")
        # The file's own name: our exports have the image's, SA-1B's files its id.
        number = number_in(path.name)
        if number not in (None, image_id) and PurePosixPath(file_name or "").stem != path.stem:
            raise bad_file(path, "image", f"the image_id that the file's name says, {number}", f"{image_id}")
        ours = self._known.of_record(path, "image", image_id, file_name)
        if ours is None:
            return Found(images=[], left_out=[_not_known(path, f"image {image_id}", file_name, self._known)])

        def load() -> Candidates:
            return _to_candidates(ours, size, _parse(path, read_json(path)["annotations"], size))

        return Found(images=[FoundImage(image_id=ours, path=path, load=load, size=size)])

    def _of_amg(self, name: str) -> Found:
        path = self.path
        if not self._num_without_id:
            expected = "an annotation to take the image's size from"
            raise bad_file(path, "", expected, "none", "remove it, or write the image's size in SA-1B's layout")
        ours = self._known.of_name(path, name)
        if ours is None:
            return Found(images=[], left_out=[_not_known(path, "image", name, self._known)])

        def load() -> Candidates:
            annotations = read_json(path)
            size = parse_size(path, "annotation 0", *stated_size(path, "annotation 0", annotations[0]))
            return _to_candidates(ours, size, _parse(path, annotations, size))

        return Found(images=[FoundImage(image_id=ours, path=path, load=load)])

    def _of_many(self) -> Found:
        if self._num_without_id:
            raise bad_file(self.path, "", "annotations with an image_id each", f"{self._num_without_id} without")
        found, left_out = [], []
        for image_id, index in self._first.items():
            if image_id not in self._images:
                expected = "an image_id of the file's images"
                raise bad_file(self.path, f"annotation {index}", expected, f"{image_id}")
        for image_id, image in self._images.items():
            if image.ours is None:
                left_out.append(_not_known(self.path, f"image {image_id}", image.file_name, self._known))
            else:
                check_packed_bytes(self.path, self._masks.count(self.path, image_id), *image.size)
                found.append(self._found(image_id, image.ours, image.size))
        return Found(images=found, left_out=left_out)

    def _found(self, image_id: int, ours: int, size: tuple[int, int]) -> FoundImage:
        path, masks = self.path, self._masks

        def load() -> Candidates:
            return _to_candidates(ours, size, masks.read(path, image_id))

        return FoundImage(image_id=ours, path=path, load=load, size=size)


def _file_name(path: Path, where: str, image: dict[str, Any]) -> str | None:
    """The image's file name, "/" between folders; LVIS has the end of an address. None where there is none."""
    for key in ("file_name", "coco_url"):
        name = image.get(key)
        if name is not None and not isinstance(name, str):
            raise bad_file(path, where, f"a text as {key}", shown(name))
        if name:
            return name.replace("\\", "/") if key == "file_name" else name.rpartition("/")[2]
    return None


def _not_known(path: Path, what: str, name: str | None, known: KnownImages) -> str:
    return f"{path}: {what}{f' {name!r}' if name else ''} is none of {known.where}"


def _parse(path: Path, annotations: Sequence[object], size: tuple[int, int]) -> list[ParsedMask]:
    """The masks of a file of one image; StoreError where one is malformed, or all are too many."""
    check_packed_bytes(path, len(annotations), *size)
    return [
        parse_annotation(path, f"annotation {index}", annotation, size, is_made_of_mask=True)
        for index, annotation in enumerate(annotations)
    ]


def _to_candidates(image_id: int, size: tuple[int, int], masks: Sequence[ParsedMask]) -> Candidates:
    return candidates_of(
        image_id,
        size[1],
        pack_runs([mask.runs for mask in masks], *size),
        [mask.predicted_iou for mask in masks],
        [mask.stability_score for mask in masks],
        np.array([mask.point_xy for mask in masks], np.float32),
    )
