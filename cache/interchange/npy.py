"""Masks as NumPy arrays, one file an image: `FOLDER/<image>.npy`.

Either masks, bool [M, H, W] (or whole numbers of 0 and one other value), or labels, whole numbers [H, W]: 0 is no mask,
every other value is one, in the order of the values; bool [H, W] is one mask. Nothing is unpickled. Scores and points
are not known.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.interchange.files import bad_file, check_packed_bytes, list_files, parse_size
from semires.cache.interchange.found import Found, FoundImage, Request, found_by_name
from semires.cache.interchange.label_pngs import candidates_of_labels
from semires.cache.interchange.packing import candidates_of

_EXPECTED = "masks, bool [M, H, W], or labels, whole numbers [H, W]"


def look_through(request: Request) -> Found:
    """The images of all .npy files; see `importing.import_masks`."""
    return found_by_name(request, list_files(request.source, ".npy"), _found)


def _found(image_id: int, path: Path) -> FoundImage:
    height, width = _open(path).shape[-2:]
    load = functools.partial(_read, image_id, path)
    return FoundImage(image_id=image_id, path=path, load=load, size=(height, width))


def _open(path: Path) -> NDArray[Any]:
    """The array as it lies in the file: nothing but its header is read, and its pages as they are used."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # of a damaged header NumPy raises this and that
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise bad_file(path, "", _EXPECTED, reason) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "bui" or array.ndim not in (2, 3):
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else "an archive of arrays"
        raise bad_file(path, "", _EXPECTED, found)
    parse_size(path, "", *array.shape[-2:])
    if array.ndim == 3:
        check_packed_bytes(path, len(array), *array.shape[-2:])
    return array


def _read(image_id: int, path: Path) -> Candidates:
    array = _open(path)
    if array.ndim == 2:
        # Counting in NumPy's own arrays: a map of the file would be read as often as there are labels.
        return candidates_of_labels(image_id, path, np.array(array))
    height, width = array.shape[1:]
    bits = np.empty((len(array), height, packed_length(width)), np.uint8)
    for row, mask in enumerate(array):
        values = mask[mask != 0]
        if len(values) and (values != values[0]).any():
            remedy = "save labels as [H, W], scores apart"
            raise bad_file(path, f"mask {row}", "0 and one other value", "several", remedy)
        bits[row] = np.packbits(mask != 0, axis=1)
    return candidates_of(image_id, width, bits)
