"""Run lengths: masks of other programs' JSON files decoded into candidates, and the public SemiRES folder.

The public SemiRES code keeps SAM's masks in `anns/<data set>/sam_rle_mask/<ref_id>.json` (its names call the ref id
`mask_id`): one file a ref, a list with one object a mask,

    [{"counts": [start, length, start, length, ...], "size": [height, width]}, ...]

whose starts count from 1 along the columns of the image (column-major) and whose runs are the set pixels. Scores,
points and the image id are not in it, and refs of one image repeat its masks.

The decoder, the limits and the errors here serve coco.py and coco_document.py as well. The files are somebody else's:
whatever is wrong with one is a StoreError that names it, raised before anything of it is stored.
"""

from __future__ import annotations

import json
import reprlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semires.cache.bits import packed_length
from semires.cache.candidates import Candidates
from semires.cache.errors import StoreError
from semires.cache.schema import IMPORTED, Manifest
from semires.cache.storage.codec import DEFAULT_CODEC
from semires.cache.writer import StoreWriter

MAX_SIDE = 2**15
"""Longest side of an image that a file may claim, in pixels."""

MAX_PIXELS = 2**28
"""Most pixels of an image that a file may claim: what decoding one mask takes in bytes. SA-1B's have 3.4 million."""

MAX_PACKED_BYTES = 2**29
"""Most bytes of packed bits that one image's masks may claim; 500 masks of SA-1B's 1500 x 2250 take 211 million."""

# Characters of one compressed count: 35 bits, more than MAX_PIXELS needs and less than an int64 holds.
_MAX_COUNT_LENGTH = 7

_OTHER_SPLIT = "import with the split that the folder was made for"

# Pixels unpacked at a time: memory while decoding stays near the packed bits that are kept.
_PIXELS_PER_BLOCK = 2**24


@dataclass(frozen=True, kw_only=True)
class ImportReport:
    """What an import found and did."""

    num_present: int
    """Images that the store already held; they are left as they are."""
    num_added: int
    """Images that were added."""
    num_masks: int
    """Candidates of the added images."""


def imported_manifest(split: str, num_images: int | None = None) -> Manifest:
    """The manifest of a store whose candidates were made elsewhere: with which SAM and settings is not known.

    `num_images` is the number of images of the split where the caller knows it. StoreError for an empty split.
    """
    return Manifest(split=split, sam=IMPORTED, sam_sha256="unknown", generator={}, num_images=num_images)


def import_run_lengths(
    folder: str | Path,
    location: str | Path,
    manifest: Manifest,
    *,
    images: Mapping[str, tuple[int, int, int]],
    on_progress: Callable[[int, int], None] | None = None,
    codec: str = str(DEFAULT_CODEC),
) -> ImportReport:
    """Add the masks of a public SemiRES `sam_rle_mask` folder to the store at `location` (a path or fsspec URL).

    `images` maps a ref id, as text, to (image_id, height, width) of its image; the caller has them from the REFER data
    set. The masks of all refs of an image become its candidates, equal masks once, in the order of the ref ids. What
    the files do not tell, predicted_iou, stability_score and points_xy, is NaN. An image none of whose refs has a file
    stays missing; one whose files all hold no mask is stored without candidates. Images that the store holds already
    are not read again, so an interrupted import resumes. `on_progress(done, total)` is told the number of images at
    the start and after each. `codec` is the StoreWriter's.

    StoreError where the folder holds no JSON file, where a file belongs to no ref of `images`, or where it is
    malformed; images before it are kept.
    """
    paths_of: dict[int, list[Path]] = {}
    sizes: dict[int, tuple[int, int]] = {}
    for path in list_json(folder):
        if path.stem not in images:
            raise bad_file(path, "", "a ref id of the data set as file name", shown(path.stem), _OTHER_SPLIT)
        image_id, height, width = images[path.stem]
        paths_of.setdefault(image_id, []).append(path)
        if sizes.setdefault(image_id, (height, width)) != (height, width):
            raise ValueError(f"images: image {image_id} expects one size, got {sizes[image_id]} and {height, width}")

    total, num_masks = len(paths_of), 0
    with StoreWriter(location, manifest, codec=codec) as writer:
        missing = writer.missing(paths_of)
        done = num_present = total - len(missing)
        if on_progress is not None:
            on_progress(done, total)
        for image_id in missing:
            candidates = _merge_refs(image_id, sizes[image_id], paths_of[image_id])
            writer.add(candidates)
            num_masks += candidates.num_masks
            done += 1
            if on_progress is not None:
                on_progress(done, total)
    return ImportReport(num_present=num_present, num_added=len(missing), num_masks=num_masks)


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
    unknown = np.full(len(distinct), np.nan, np.float32)
    check_packed_bytes(paths[0], len(distinct), *size)
    return decode_runs(image_id, *size, list(distinct.values()), unknown, unknown, np.stack([unknown, unknown], axis=1))


def _runs_of_pairs(path: Path, where: str, counts: object, *, num_pixels: int) -> NDArray[np.int64]:
    """Runs (see `decode_runs`) of 1-based start and length pairs, the only such runs of their mask."""
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


def decode_runs(
    image_id: int,
    height: int,
    width: int,
    runs: Sequence[NDArray[np.int64]],
    predicted_iou: ArrayLike,
    stability_score: ArrayLike,
    points_xy: ArrayLike,
) -> Candidates:
    """Candidates of masks given as runs, one array a mask; the other arguments are those of `Candidates.from_masks`.

    Runs are COCO's uncompressed counts: int64, lengths of alternating runs down the columns of the image, the first of
    clear pixels (and of length 0 where the first pixel is set). Each array's lengths must be at least 0 and sum to
    height * width: `check_runs`, and `check_packed_bytes` for their number, come first.
    """
    ious = np.asarray(predicted_iou, np.float32)
    stabilities = np.asarray(stability_score, np.float32)
    points = np.asarray(points_xy, np.float32).reshape(len(runs), 2)
    masks_per_block = max(1, _PIXELS_PER_BLOCK // (height * width))
    blocks = []
    for start in range(0, max(1, len(runs)), masks_per_block):
        rows = slice(start, start + masks_per_block)
        masks = np.zeros((len(runs[rows]), height, width), np.bool_)
        for mask, lengths in zip(masks, runs[rows], strict=True):
            _fill_mask(mask, lengths)
        blocks.append(Candidates.from_masks(image_id, masks, ious[rows], stabilities[rows], points[rows]))
    return Candidates(
        image_id=image_id,
        height=height,
        width=width,
        bits=np.concatenate([block.bits for block in blocks]),
        area=np.concatenate([block.area for block in blocks]),
        boxes_xyxy=np.concatenate([block.boxes_xyxy for block in blocks]),
        predicted_iou=ious,
        stability_score=stabilities,
        points_xy=points,
    )


def _fill_mask(mask: NDArray[np.bool_], lengths: NDArray[np.int64]) -> None:
    """Set the pixels of the runs in `mask`, bool [H, W], all clear before."""
    height, width = mask.shape
    is_set = np.arange(len(lengths)) % 2 == 1
    by_column = np.repeat(is_set, lengths).reshape(width, height)
    # Turning columns into rows is what costs: only those from the first to the last set pixel.
    num_after = lengths[-1] if len(lengths) % 2 else 0
    first, stop = lengths[0] // height, width - num_after // height
    mask[:, first:stop] = by_column[first:stop].T


def decompress_counts(path: Path, where: str, counts: str) -> NDArray[np.int64]:
    """Counts of COCO's compressed text as runs (see `decode_runs`), int64; StoreError where the text is malformed.

    Each count is a little-endian number of 5-bit digits, characters "0" to "o", whose bit 5 says that another digit
    follows and whose last digit's bit 4 is the sign; from the fourth on a count is a difference to the one two before.
    Parsed here and not by pycocotools, whose C reads beyond a text that ends within a number.
    """
    digits = np.frombuffer(counts.encode("utf-8", "surrogatepass"), np.uint8).astype(np.int64) - ord("0")
    if digits.size and (digits.min() < 0 or digits.max() > 0x3F):
        raise bad_file(path, where, 'counts of characters "0" to "o"', shown(counts))
    ends = np.flatnonzero((digits & 0x20) == 0)
    if not digits.size or ends.size == 0 or ends[-1] != len(digits) - 1:
        raise bad_file(path, where, "counts that end with a whole number", shown(counts))
    starts = np.concatenate([[0], ends[:-1] + 1])
    sizes = ends - starts + 1
    if sizes.max() > _MAX_COUNT_LENGTH:
        expected = f"counts of at most {_MAX_COUNT_LENGTH} characters each"
        raise bad_file(path, where, expected, f"one of {sizes.max()}")
    position = np.arange(len(digits)) - np.repeat(starts, sizes)
    lengths = np.add.reduceat((digits & 0x1F) << (5 * position), starts)
    lengths -= np.where(digits[ends] & 0x10, 1 << (5 * sizes), 0)
    lengths[1::2] = np.cumsum(lengths[1::2])
    lengths[2::2] = np.cumsum(lengths[2::2])
    return lengths


def check_runs(path: Path, where: str, runs: NDArray[np.int64], *, num_pixels: int) -> None:
    """Raise StoreError where the runs of a file's mask do not fill its image of `num_pixels` exactly."""
    if runs.size and (runs.min() < 0 or runs.max() > num_pixels):
        bad = runs[(runs < 0) | (runs > num_pixels)][0]
        raise bad_file(path, where, f"runs of 0 to {num_pixels} pixels", f"a run of {bad}")
    if runs.sum() != num_pixels:
        raise bad_file(path, where, f"runs that sum to the size's {num_pixels} pixels", f"a sum of {runs.sum()}")


def check_packed_bytes(path: Path, num_masks: int, height: int, width: int) -> None:
    """Raise StoreError where the masks of an image would take more memory than any real image's."""
    num_bytes = num_masks * height * packed_length(width)
    if num_bytes > MAX_PACKED_BYTES:
        found = f"{num_masks} of {height} x {width} that take {num_bytes}"
        raise bad_file(path, "", f"masks that take at most {MAX_PACKED_BYTES} bytes packed", found)


def parse_size(path: Path, where: str, height: object, width: object) -> tuple[int, int]:
    """Height and width in pixels as a file gives them, within the limits above; StoreError otherwise."""
    for name, side in (("height", height), ("width", width)):
        if type(side) is not int or not 1 <= side <= MAX_SIDE:
            raise bad_file(path, where, f"a {name} of 1 to {MAX_SIDE} pixels", shown(side))
    assert isinstance(height, int)
    assert isinstance(width, int)
    if height * width > MAX_PIXELS:
        raise bad_file(path, where, f"an image of at most {MAX_PIXELS} pixels", f"{height} x {width}")
    return height, width


def parse_integers(path: Path, where: str, value: object) -> NDArray[np.int64]:
    """A JSON list of integers as int64 [N]; StoreError where it is anything else."""
    # Types first: numpy would turn texts and fractions into integers, or a mixed list into one of long texts. The
    # bound leaves room to add two.
    if not isinstance(value, list) or not set(map(type, value)) <= {int}:
        raise bad_file(path, where, "counts as a list of integers", shown(value))
    if value and (max(value) >= 2**62 or min(value) <= -(2**62)):
        raise bad_file(path, where, "counts below the number of pixels", shown(max(value, key=abs)))
    return np.array(value, np.int64)


def list_json(folder: str | Path) -> list[Path]:
    """Files `*.json` of the folder, hidden ones left out, numbers in their order; StoreError where there is none."""
    folder = Path(folder)
    try:
        names = [path for path in folder.iterdir() if path.suffix == ".json" and not path.name.startswith(".")]
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise StoreError(f"{folder}: expected a folder of JSON files, found: {reason}; correct the folder") from error
    paths = [path for path in names if path.is_file()]
    if not paths:
        raise StoreError(f"{folder}: expected JSON files, found none; give the folder that holds them directly")
    return sorted(paths, key=lambda path: (len(path.stem), path.stem))


def read_json(path: Path) -> Any:
    """The parsed document; StoreError where the file cannot be read or is no JSON."""
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        # RecursionError: a document nested deeper than the parser goes.
        raise bad_file(path, "", "a JSON document", f"{type(error).__name__}: {error}") from error


def bad_file(
    path: Path, where: str, expected: str, found: str, remedy: str = "restore or remove this file and import again"
) -> StoreError:
    """The error for a file that cannot be imported; `where` names the place in it and may be empty."""
    place = f"{path}: {where}" if where else str(path)
    return StoreError(f"{place}: expected {expected}, found {found}; {remedy}")


def shown(value: object) -> str:
    """A parsed JSON value as one short line, however long or deep it is."""
    return reprlib.repr(value)
