"""Masks as labelled PNG files, one an image: `FOLDER/<image>.png`, the value of a pixel is the mask that it is in.

0 is no mask, every other value is one, in the order of the values: grey of 8 or 16 bits, a palette's index, or of
colours COCO panoptic's number (red + 256 green + 65536 blue). Scores and points are not known.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.interchange.files import bad_file, check_packed_bytes, list_files
from semires.cache.interchange.found import Found, FoundImage, Request, found_by_name
from semires.cache.interchange.packing import candidates_of, pack_labels
from semires.cache.interchange.pngs import png_size, read_png

MAX_LABELS = 10_000
"""Most masks of a labelled image: a photograph has more colours."""


def look_through(request: Request) -> Found:
    """The images of all PNG files; see `importing.import_masks`."""
    return found_by_name(request, list_files(request.source, ".png"), _found)


def _found(image_id: int, path: Path) -> FoundImage:
    return FoundImage(image_id=image_id, path=path, load=functools.partial(_read, image_id, path), size=png_size(path))


def _read(image_id: int, path: Path) -> Candidates:
    return candidates_of_labels(image_id, path, read_png(path, by_colour=False))


def candidates_of_labels(image_id: int, path: Path, labels: NDArray[Any]) -> Candidates:
    """A mask of every value but 0 in `labels`, whole numbers [H, W]; StoreError where one is below, or too many are."""
    height, width = labels.shape
    values = np.unique(labels)
    if len(values) and values[0] < 0:
        raise bad_file(path, "", "labels from 0 (no mask)", f"{values[0]}", "write 0 where no mask is")
    values = values[values != 0]
    if len(values) > MAX_LABELS:
        remedy = "give images whose values are masks, and no photographs"
        raise bad_file(path, "", f"at most {MAX_LABELS} labels", f"{len(values)}", remedy)
    check_packed_bytes(path, len(values), height, width)
    return candidates_of(image_id, width, pack_labels(labels, values))
