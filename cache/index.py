"""The image index: where each image of a store or view lies, over all its parts, kept in memory."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from semires.cache.files import FileRecord
from semires.cache.parts import PartIndex


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageLocation:
    """Where one image lies."""

    image_id: int
    """Id of the image."""
    part: str
    """Name of the part."""
    height: int
    """Image height in pixels."""
    width: int
    """Image width in pixels."""
    mask_start: int
    """First row in the mask columns."""
    mask_stop: int
    """Row after the last."""
    byte_start: int
    """First byte in `bits` of the native part."""
    byte_stop: int
    """Byte after the last."""
    file: FileRecord | None = None
    """What is known of the image's file."""

    @classmethod
    def of(cls, part: str, index: PartIndex, row: int) -> ImageLocation:
        """Location of the image at `row` of the part with this name and index."""
        return cls(
            image_id=int(index.image_id[row]),
            part=part,
            height=int(index.height[row]),
            width=int(index.width[row]),
            mask_start=int(index.mask_offset[row]),
            mask_stop=int(index.mask_offset[row + 1]),
            byte_start=int(index.byte_offset[row]),
            byte_stop=int(index.byte_offset[row + 1]),
            file=index.file_of(row),
        )

    @property
    def num_masks(self) -> int:
        """Candidates of the image; may be 0."""
        return self.mask_stop - self.mask_start


class ImageIndex:
    """All images of some parts, sorted by id.

    Of an image that several parts hold (two writers worked on it at once) the first part by name counts, so that
    every reader sees the same candidates.
    """

    def __init__(self, parts: Mapping[str, PartIndex]) -> None:
        names = sorted(parts)
        self._parts = [(name, parts[name]) for name in names]
        ids = np.concatenate([np.zeros(0, np.int64), *(parts[name].image_id for name in names)])
        # np.unique gives the first occurrence, and parts are in the order of their names.
        self.image_ids, first = np.unique(ids, return_index=True)
        starts = np.cumsum([0, *(len(parts[name].image_id) for name in names)])
        self._part = np.searchsorted(starts, first, side="right") - 1
        self._row = first - starts[self._part]
        counts = np.concatenate([np.zeros(0, np.int64), *(parts[name].masks_per_image for name in names)])
        self.masks_per_image: NDArray[np.int64] = counts[first]

    def __len__(self) -> int:
        return len(self.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return isinstance(image_id, int | np.integer) and self._find(int(image_id)) is not None

    def locate(self, image_id: int) -> ImageLocation | None:
        """Where the image lies, or None where no part holds it."""
        found = self._find(image_id)
        if found is None:
            return None
        name, part = self._parts[self._part[found]]
        return ImageLocation.of(name, part, int(self._row[found]))

    def _find(self, image_id: int) -> int | None:
        position = int(np.searchsorted(self.image_ids, image_id))
        return position if position < len(self) and self.image_ids[position] == image_id else None


def contiguous_runs(locations: Iterable[ImageLocation]) -> list[list[ImageLocation]]:
    """The locations, each once, in groups that follow each other without a gap in one part: one slice reads a group."""
    runs: list[list[ImageLocation]] = []
    # An image without masks starts where the next one does, and comes first.
    ordered = sorted(locations, key=lambda found: (found.part, found.mask_start, found.mask_stop, found.image_id))
    for found in ordered:
        last = runs[-1][-1] if runs else None
        if last is not None and (last.part, last.image_id) == (found.part, found.image_id):
            continue
        if last is not None and (last.part, last.mask_stop) == (found.part, found.mask_start):
            runs[-1].append(found)
        else:
            runs.append([found])
    return runs
