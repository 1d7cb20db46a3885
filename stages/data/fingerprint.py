"""What a split is, in a few numbers and digests: scores of equal fingerprints were measured on equal data."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from semires.stages.data.errors import InputError
from semires.stages.data.refer import Ref, ReferDataset, Text
from semires.stages.data.splits import plain_name

if TYPE_CHECKING:
    from hashlib import _Hash


@dataclass(frozen=True, kw_only=True)
class SplitFingerprint:
    """A split as it was loaded, what was dropped of it left out.

    Image files are known by their names and sizes, not by their pixels: a file that was replaced by another of as many
    bytes is not noticed.
    """

    data: str
    """The data set's name; of own data the file's, wherever it lies and however its path was typed."""
    split: str
    num_refs: int
    num_images: int
    num_expressions: int
    refs_sha256: str
    """Hexadecimal, over the ref ids in their order, a line each, in decimal digits."""
    content_sha256: str
    """Hexadecimal, over all else that decides scores: each ref's image (file name, bytes, height, width), the text of
    its expressions that is read, and its mask."""

    @classmethod
    def of(cls, dataset: ReferDataset, split: str, text: Text) -> "SplitFingerprint":
        """The fingerprint of a split whose expressions are read as `text`. InputError where it has no refs, or an image
        file went away meanwhile."""
        refs = dataset.refs_of(split)
        return cls(
            data=plain_name(dataset.spec.name),
            split=split,
            num_refs=len(refs),
            num_images=len({ref.image_id for ref in refs}),
            num_expressions=sum(len(ref.expressions) for ref in refs),
            refs_sha256=hashlib.sha256("".join(f"{ref.ref_id}\n" for ref in refs).encode()).hexdigest(),
            content_sha256=_content(dataset, refs, text),
        )


def _content(dataset: ReferDataset, refs: Sequence[Ref], text: Text) -> str:
    digest, bytes_of = hashlib.sha256(), dict[int, int]()
    for ref in refs:
        image = dataset.image_record(ref.image_id)
        if ref.image_id not in bytes_of:
            bytes_of[ref.image_id] = _num_bytes(dataset, ref.image_id)
        known = [ref.image_id, image.file_name, bytes_of[ref.image_id], image.height, image.width]
        digest.update(json.dumps([ref.ref_id, *known, ref.texts(text)]).encode())
        _add_arrays(digest, dataset.segmentation(ref))
    return digest.hexdigest()


def _num_bytes(dataset: ReferDataset, image_id: int) -> int:
    path = dataset.image_path(image_id)
    try:
        return path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: expected an image file, found none ({error.strerror}); put it back") from error


def _add_arrays(digest: "_Hash", found: Any) -> None:
    """Polygons or run lengths, with how many there are: neither can pass for the other, nor for no mask."""
    if found is None:
        digest.update(b"-")
    elif isinstance(found, tuple):
        digest.update(f"({len(found)}".encode())
        for part in found:
            _add_arrays(digest, part)
    else:
        digest.update(f"[{found.dtype}{found.shape}".encode() + found.tobytes())
