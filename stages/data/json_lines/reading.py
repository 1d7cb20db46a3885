"""A JSON-lines file of own data, read into a `ReferDataset`; what is wrong with it is told line by line.

Everything that a line points at is looked at once, on loading: the heads of the image files, which have their sizes,
and PNG masks, which become run lengths. So nothing downstream knows where a data set is from.
"""

import codecs
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from semires.stages.data.errors import InputError, printable
from semires.stages.data.images import Header, image_id_of, load_mask, read_header
from semires.stages.data.instances import MAX_SIDE, ImageRecord
from semires.stages.data.json_lines.rows import Row, parse_row
from semires.stages.data.masks import Segmentation, encode_mask, is_empty, parse_segmentation
from semires.stages.data.problems import ReferProblems
from semires.stages.data.refer import Ref, ReferDataset
from semires.stages.data.splits import own_path, spec_of

NUM_NAMED = 20
"""Bad lines that a command names; `semires data check` names all."""


@dataclass(frozen=True, kw_only=True)
class BadLine:
    """A line that cannot be used and why; lines are counted from 1."""

    number: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.number}: {printable(self.reason)}"


@dataclass(frozen=True, kw_only=True)
class OwnImage:
    """An image file that lines name: the id that is made of its path, its record, and what its head tells."""

    image_id: int
    record: ImageRecord
    header: Header


@dataclass(frozen=True, kw_only=True)
class OwnRef:
    """A usable line: its image, and its mask where it has one."""

    row: Row
    image: OwnImage
    mask: Segmentation | None


@dataclass(frozen=True, kw_only=True)
class JsonLines:
    """What is in a file: its usable lines and its bad ones, each in their order; blank lines are neither."""

    path: Path
    refs: tuple[OwnRef, ...]
    bad: tuple[BadLine, ...]


def load_json_lines(split: str) -> ReferDataset:
    """The data set in the JSON-lines file that `split` is the path of.

    Every line is a ref, and an annotation of its own under the ref's id; both its texts are the same. Image ids are
    `image_id_of` the images' paths. Raises `InputError` when the file cannot be read, has no lines, or has a bad one:
    unlike REFER's files, own data can be mended by who reads the message.
    """
    return dataset_of(split, read_json_lines(own_path(split)))


def dataset_of(split: str, lines: JsonLines) -> ReferDataset:
    """`load_json_lines` of a file that was read."""
    if lines.bad:
        raise _refusal(lines)
    if not lines.refs:
        raise InputError(f"{split}: expected JSON lines, an object a line, found none; see docs/own-data.md")
    names = sorted({ref.row.category for ref in lines.refs if ref.row.category is not None})
    categories = {"": 0} | {name: number for number, name in enumerate(names, start=1)}
    refs = [
        Ref(
            ref_id=ref.row.ref_id,
            image_id=ref.image.image_id,
            ann_id=ref.row.ref_id,
            category_id=categories[ref.row.category or ""],
            split=ref.row.split,
            expressions=ref.row.expressions,
            raw_expressions=ref.row.expressions,
            has_mask=ref.mask is not None,
        )
        for ref in sorted(lines.refs, key=lambda ref: ref.row.ref_id)
    ]
    evaluation = sorted({ref.split for ref in refs} - {"train"}, key=lambda name: (name != "val", name))
    return ReferDataset(
        replace(spec_of(split), evaluation=tuple(evaluation)),
        tuple(refs),
        ReferProblems(),
        lines.path.parent,
        {ref.image.image_id: ref.image.record for ref in lines.refs},
        {ref.row.ref_id: ref.mask for ref in lines.refs if ref.mask is not None},
        {number: name for name, number in categories.items()},
        notes=tuple(notes_of(lines.refs)),
        is_upright=True,
        turned_ids=frozenset(ref.image.image_id for ref in lines.refs if ref.image.header.is_turned),
    )


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The file at `path`; InputError where it cannot be read."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(
            f"{path}: expected a JSON-lines file, could not read it ({error.strerror}); check the path"
        ) from error


def read_json_lines(path: Path) -> JsonLines:
    """Read all lines, good and bad. InputError where there is no file that can be read."""
    with opened(path) as file:
        content = file.read().removeprefix(codecs.BOM_UTF8)
    images = _Images(path.parent)
    refs, bad = [], []
    line_of: dict[int, int] = {}
    numbered = [(number, line) for number, line in enumerate(content.split(b"\n"), start=1) if line.strip()]
    for number, line in numbered:
        try:
            row = parse_row(number, line)
            first = line_of.setdefault(row.ref_id, number)
            if first != number:
                own = "" if row.ref is not None else ", the number of its line"
                raise InputError(
                    f"expected a ref of its own, found {row.ref_id}{own}, which line {first} has; give it another `ref`"
                )
            image = images[row.image]
            refs.append(OwnRef(row=row, image=image, mask=_mask(row, path.parent, image)))
        except InputError as error:
            bad.append(BadLine(number=number, reason=str(error)))
    return JsonLines(path=path, refs=tuple(refs), bad=tuple(bad))


class _Images:
    """The images of a folder's file by the names that lines have for them; each file's head is read once."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._base = os.path.abspath(folder)
        self._found: dict[str, OwnImage | str] = {}  # the image, or what is wrong with it
        self._path_of: dict[int, str] = {}

    def __getitem__(self, name: str) -> OwnImage:
        """InputError for a file that is none that training could use."""
        if name not in self._found:
            try:
                self._found[name] = self._look_at(name)
            except InputError as error:
                self._found[name] = str(error)
        found = self._found[name]
        if isinstance(found, str):
            raise InputError(found)
        return found

    def _look_at(self, name: str) -> OwnImage:
        header = read_header(self._folder / name, upright=True)
        height, width = header.size
        if max(height, width) > MAX_SIDE:
            raise InputError(f"expected sides of 1 to {MAX_SIDE} pixels, found {height}x{width}; scale the image down")
        # Two spellings of one path are one image.
        path = os.path.relpath(os.path.join(self._base, name), self._base)
        image_id = image_id_of(path)
        if self._path_of.setdefault(image_id, path) != path:
            raise InputError(f"expected an image id of its own, found that of {self._path_of[image_id]!r}; rename one")
        return OwnImage(image_id=image_id, record=ImageRecord(name, height, width), header=header)


def _mask(row: Row, folder: Path, image: OwnImage) -> Segmentation | None:
    """The mask of a row as a data set keeps it; InputError for one that does not fit the image or covers nothing."""
    size = image.header.size
    if row.mask is None:
        return None
    if isinstance(row.mask, str):
        pixels = load_mask(folder / row.mask)
        if pixels.shape != size:
            is_stored = image.header.is_turned and pixels.shape == size[::-1]
            raise InputError(
                f"{folder / row.mask}: expected a mask of the image's size {size} (height, width, upright), found "
                f"{pixels.shape}" + (", that of the pixels as stored; turn the mask as its image is" * is_stored)
            )
        segmentation: Segmentation | None = encode_mask(pixels)
    else:
        is_flat = isinstance(row.mask, list) and row.mask and not isinstance(row.mask[0], list)
        segmentation = parse_segmentation([row.mask] if is_flat else row.mask, *size)
    if segmentation is None or is_empty(segmentation, *size):
        raise InputError("expected a `mask` that covers a pixel, found an empty one; leave it out where none is known")
    return segmentation


def _refusal(lines: JsonLines) -> InputError:
    """The error that names the bad lines, one a line where there are several."""
    if len(lines.bad) == 1:
        return InputError(f"{lines.path}: {lines.bad[0]}")
    named = [f"  {bad}" for bad in lines.bad[:NUM_NAMED]]
    if len(lines.bad) > NUM_NAMED:
        named.append(f"  and {len(lines.bad) - NUM_NAMED} more: `semires data check` names all")
    total = len(lines.bad) + len(lines.refs)
    return InputError(
        "\n".join([f"{lines.path}: {len(lines.bad)} of {total} lines cannot be used, mend them:", *named])
    )


def notes_of(refs: Sequence[OwnRef]) -> Iterator[str]:
    """What a user should know of usable lines, a sentence each."""
    names: dict[int, str] = {ref.image.image_id: ref.image.record.file_name for ref in refs}
    splits, with_mask = defaultdict[int, set[str]](set), defaultdict[int, set[bool]](set)
    for ref in refs:
        splits[ref.image.image_id].add(ref.row.split)
        if ref.row.split == "train":
            with_mask[ref.image.image_id].add(ref.mask is not None)

    def some(image_ids: list[int]) -> str:
        return ", ".join(repr(names[image_id]) for image_id in image_ids[:3]) + (", …" if len(image_ids) > 3 else "")

    mixed = [image_id for image_id, found in with_mask.items() if len(found) == 2]
    if mixed:
        yield (
            f"{len(mixed)} train images have refs with a mask and refs without one ({some(mixed)}): the former are "
            "labeled, the latter are not"
        )
    shared = [image_id for image_id, found in splits.items() if "train" in found and len(found) > 1]
    if shared:
        yield f"{len(shared)} train images are evaluated on too ({some(shared)}): scores are too good"
    turned = list(dict.fromkeys(ref.image.image_id for ref in refs if ref.image.header.is_turned))
    if turned:
        yield (
            f"{len(turned)} images ask by EXIF to be turned ({some(turned)}), which is done: masks and expressions "
            "must fit the upright pictures"
        )
    scaled = list(dict.fromkeys(ref.image.image_id for ref in refs if ref.image.header.is_scaled))
    if scaled:
        yield f"{len(scaled)} images have more than 8 bits a pixel ({some(scaled)}): each is scaled by its own range"
