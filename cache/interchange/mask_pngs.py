"""Masks as PNG files, one a mask, in a folder an image: what segment-anything's `scripts/amg.py` writes.

    FOLDER/<image>/0.png 1.png ...     black where the mask is not, one other value where it is
    FOLDER/<image>/metadata.csv        amg.py's: id (the file's name), area, bbox, point, scores; may be missing

The folder's path below FOLDER names the image.
"""

from __future__ import annotations

import csv
import functools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.interchange.files import bad_file, check_packed_bytes, list_files, shown
from semires.cache.interchange.found import Found, FoundImage, Request, found_by_name
from semires.cache.interchange.packing import candidates_of
from semires.cache.interchange.pngs import png_size, read_png

METADATA = "metadata.csv"

# amg.py's columns that are read: what becomes predicted_iou, stability_score, x and y; and area, which is compared.
_NUMBERS = ("predicted_iou", "stability_score", "point_input_x", "point_input_y", "area")

# A row is some 150 bytes.
_MAX_METADATA_BYTES = 2**24


def look_through(request: Request) -> Found:
    """The images of all folders that hold PNG files; see `importing.import_masks`."""
    paths_of: dict[Path, list[Path]] = {}
    for path in list_files(request.source, ".png"):
        if request.source in (path, path.parent):
            remedy = "put each image's masks into a folder of its name; a labelled PNG an image: `--format labels`"
            raise bad_file(path, "", "a folder an image", "a file outside of one", remedy)
        paths_of.setdefault(path.parent, []).append(path)

    def make(image_id: int, folder: Path) -> FoundImage:
        load = functools.partial(_read_folder, image_id, folder, paths_of[folder])
        return FoundImage(image_id=image_id, path=folder, load=load)

    return found_by_name(request, paths_of, make)


def _read_folder(image_id: int, folder: Path, paths: Sequence[Path]) -> Candidates:
    height, width = png_size(paths[0])
    check_packed_bytes(folder, len(paths), height, width)
    numbers = _read_metadata(folder / METADATA, paths)
    bits = np.empty((len(paths), height, packed_length(width)), np.uint8)
    for row, path in enumerate(paths):
        if png_size(path) != (height, width):
            found = "{} x {}".format(*png_size(path))
            raise bad_file(path, "", f"the {height} x {width} pixels of {paths[0].name}", found)
        bits[row] = _read_mask(path)
        area = numbers[row, 4]
        if not math.isnan(area) and area != np.bitwise_count(bits[row]).sum():
            found = f"{np.bitwise_count(bits[row]).sum()}"
            raise bad_file(path, "", f"the mask of {area:g} pixels that {METADATA} says", found)
    return candidates_of(image_id, width, bits, numbers[:, 0], numbers[:, 1], numbers[:, 2:4])


def _read_mask(path: Path) -> NDArray[np.uint8]:
    """Packed rows of the mask: what is not black."""
    pixels = read_png(path, by_colour=True)
    mask = pixels != 0
    values = pixels[mask]
    if len(values) and (values != values[0]).any():
        remedy = "write a file a mask, without soft edges; a labelled PNG an image: `--format labels`"
        raise bad_file(path, "", "a mask in black and one other value", "several", remedy)
    return np.packbits(mask, axis=1)


def _read_metadata(path: Path, masks: Sequence[Path]) -> NDArray[np.float64]:
    """The numbers of `_NUMBERS` of each mask, float64 [M, 5], NaN where there is no file or no such column."""
    numbers = np.full((len(masks), len(_NUMBERS)), np.nan)
    try:
        if not path.is_file():
            return numbers
        if path.stat().st_size > _MAX_METADATA_BYTES:
            raise bad_file(path, "", f"at most {_MAX_METADATA_BYTES} bytes", f"{path.stat().st_size}")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
    except StoreError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise bad_file(path, "", "amg.py's table of masks", reason) from error
    row_of = {row.get("id"): row for row in rows}
    if set(row_of) != {mask.stem for mask in masks} or len(row_of) != len(rows):
        expected = f"a row of each of the folder's {len(masks)} masks, its name without .png as id"
        raise bad_file(path, "", expected, f"{len(rows)} rows: {shown(list(row_of))}")
    for row, mask in enumerate(masks):
        for column, key in enumerate(_NUMBERS):
            text = row_of[mask.stem].get(key) or "nan"
            try:
                numbers[row, column] = float(text)
            except (TypeError, ValueError):
                raise bad_file(path, f"id {mask.stem}", f"a number as {key}", shown(text)) from None
    return numbers
