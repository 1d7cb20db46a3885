"""What is kept of every expression that a run was measured on.

Axes: E expressions, in the order of their refs' ids and of each ref's file.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class PixelCounts:
    """Of each expression of a split, for one run: image_ids, intersections, unions, int64 [E]."""

    image_ids: NDArray[np.int64]
    intersections: NDArray[np.int64]
    unions: NDArray[np.int64]

    @property
    def ious(self) -> NDArray[np.float64]:
        """IoU of each expression, in [0, 1]; an empty union counts 0, as in `ious_from_counts`."""
        return self.intersections / np.maximum(self.unions, 1)

    @property
    def oiou(self) -> float:
        """Overall IoU in per cent; 0 where all unions are empty."""
        return float(100.0 * self.intersections.sum() / max(int(self.unions.sum()), 1))

    def part(self, mask: NDArray[np.bool_]) -> "PixelCounts":
        """Those of the expressions that `mask`, bool [E], chooses."""
        return PixelCounts(
            image_ids=self.image_ids[mask], intersections=self.intersections[mask], unions=self.unions[mask]
        )


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """Of each expression of a split, int64 [E] each: its ref and image, the pixels of prediction and truth together and
    of the truth at the training size, and where they were measured, those at the image's own size."""

    ref_ids: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    intersections: NDArray[np.int64]
    unions: NDArray[np.int64]
    areas: NDArray[np.int64]
    native_intersections: NDArray[np.int64] | None = None
    native_unions: NDArray[np.int64] | None = None

    @property
    def pixels(self) -> PixelCounts:
        """Those at the training size."""
        return PixelCounts(image_ids=self.image_ids, intersections=self.intersections, unions=self.unions)

    @property
    def native_pixels(self) -> PixelCounts | None:
        """Those at the images' own sizes, None where they were not measured."""
        if self.native_intersections is None or self.native_unions is None:
            return None
        return PixelCounts(image_ids=self.image_ids, intersections=self.native_intersections, unions=self.native_unions)
