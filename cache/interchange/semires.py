"""The public SemiRES code's masks: `anns/<data set>/sam_rle_mask/<ref_id>.json` (its names call the ref id `mask_id`).

One file a ref, a list with one object a mask,

    [{"counts": [start, length, start, length, ...], "size": [height, width]}, ...]

whose starts count from 1 along the columns of the image (column-major) and whose runs are the set pixels. Scores,
points and the image id are not in it, and refs of one image repeat its masks: the masks of all refs of an image become
its candidates, equal masks once, in the order of the ref ids. An image none of whose refs has a file stays missing; one
whose files all hold no mask is stored without candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from semires.cache.candidates import Candidates
from semires.cache.interchange.files import bad_file, check_packed_bytes, list_files, read_json, shown
from semires.cache.interchange.found import Found, FoundImage, Request
from semires.cache.interchange.packing import candidates_of, pack_runs
from semires.cache.interchange.runs import parse_integers

_OTHER_SPLIT = "import with the split that the folder was made for"


def look_through(request: Request) -> Found:
    """The images of all refs that have a file; StoreError for one that belongs to no ref of the known images."""
    paths_of: dict[int, list[Path]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for path in list_files(request.source, ".json"):
        if path.stem not in request.images.refs:
            raise bad_file(path, "", "a ref id of the data set as file name", shown(path.stem), _OTHER_SPLIT)
        image_id, height, width = request.images.refs[path.stem]
        paths_of.setdefault(image_id, []).append(path)
        if sizes.setdefault(image_id, (height, width)) != (height, width):
            raise ValueError(f"refs: image {image_id} expects one size, got {sizes[image_id]} and {height, width}")
    return Found(
        images=[
            FoundImage(
                image_id=image_id,
                path=paths[0],
                load=functools.partial(_merge_refs, image_id, sizes[image_id], paths),
                size=sizes[image_id],
            )
            for image_id, paths in paths_of.items()
        ]
    )


def _merge_refs(image_id: int, size: tuple[int, int], paths: Sequence[Path]) -> Candidates:
    """The distinct masks in the files `paths`, all of one image of `size` (height, width)."""
    # Runs in this form are unique to a mask, so equal masks are found before any is decoded.
    distinct: dict[bytes, NDArray[np.int64]] = {}
    for path in paths:
        records = read_json(path)
        if not isinstance(records, list):
            raise bad_file(path, "", "a list of masks", shown(records))
        for index, record in enumerate(records):
            where = f"mask {index}"
            if not isinstance(record, dict) or not {"counts", "size"} <= record.keys():
                raise bad_file(path, where, "an object with counts and size", shown(record))
            if record["size"] != [*size]:
                raise bad_file(path, where, f"the image's size {[*size]}", shown(record["size"]), _OTHER_SPLIT)
            runs = _runs_of_pairs(path, where, record["counts"], num_pixels=size[0] * size[1])
            distinct.setdefault(runs.tobytes(), runs)
    check_packed_bytes(paths[0], len(distinct), *size)
    return candidates_of(image_id, size[1], pack_runs(list(distinct.values()), *size))


def _runs_of_pairs(path: Path, where: str, counts: object, *, num_pixels: int) -> NDArray[np.int64]:
    """Runs (see runs.py) of 1-based start and length pairs, the only such runs of their mask."""
    pairs = parse_integers(path, where, counts)
    starts, lengths = pairs[0::2] - 1, pairs[1::2]
    if len(starts) != len(lengths):
        raise bad_file(path, where, "counts in pairs of start and length", f"{len(pairs)} numbers")
    stops = starts + lengths
    outside = (starts < 0) | (lengths < 1) | (stops > num_pixels)
    if outside.any():
        first = int(outside.argmax())
        expected = f"runs of at least 1 pixel inside 1 to {num_pixels}"
        raise bad_file(path, where, expected, f"start {pairs[2 * first]} and length {pairs[2 * first + 1]}")
    # The public encoder writes runs in order with a gap between, the public decoder takes any: so does this.
    order = np.argsort(starts, kind="stable")
    starts, stops = starts[order], np.maximum.accumulate(stops[order])
    opens = np.ones(len(starts), np.bool_)
    opens[1:] = starts[1:] > stops[:-1]
    closes = np.ones(len(starts), np.bool_)
    closes[:-1] = opens[1:]
    borders = np.stack([starts[opens], stops[closes]], axis=1).reshape(-1)
    return np.diff(borders, prepend=0, append=num_pixels)
