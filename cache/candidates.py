"""The candidate masks of one image, bit-packed, with what SAM's generator says about each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from semires.cache.bits import pack_flat, pack_rows, packed_areas, packed_boxes, packed_length, unpack_rows


@dataclass(frozen=True, kw_only=True, eq=False)
class Candidates:
    """M candidate masks of one image at native resolution; M may be 0.

    Coordinates are pixels of the native image. Arrays of another dtype or shape than documented raise ValueError.
    The fields are those of segment-anything's SamAutomaticMaskGenerator records, one array instead of M dicts.
    """

    image_id: int
    """Id of the image in its data set (COCO's for RefCOCO); fits in int64."""
    height: int
    """Image height in pixels, at least 1."""
    width: int
    """Image width in pixels, at least 1."""
    bits: NDArray[np.uint8]
    """uint8 [M, height, ceil(width / 8)]: packed rows (see bits.py), padding bits zero."""
    area: NDArray[np.int32]
    """int32 [M]: set pixels of each mask."""
    boxes_xyxy: NDArray[np.int32]
    """int32 [M, 4]: tight box x0, y0, x1, y1, right and bottom exclusive; all zero for an empty mask."""
    predicted_iou: NDArray[np.float32]
    """float32 [M]: the IoU that SAM predicts for its own mask; of a mask found by a word, SAM 3's score of it. NaN: not
    known."""
    stability_score: NDArray[np.float32]
    """float32 [M]: IoU of the mask cut at a higher and at a lower logit."""
    points_xy: NDArray[np.float32]
    """float32 [M, 2]: the prompt point x, y that the mask came from; NaN where it came from a word, or is imported and
    not known."""

    def __post_init__(self) -> None:
        if not -(2**63) <= self.image_id < 2**63:
            raise ValueError(f"image_id expects an int64, got {self.image_id}")
        if self.height < 1 or self.width < 1:
            raise ValueError(f"image {self.image_id}: size expects at least 1x1, got {self.height}x{self.width}")
        count = len(self.bits)
        self._check("bits", self.bits, np.uint8, (count, self.height, packed_length(self.width)))
        self._check("area", self.area, np.int32, (count,))
        self._check("boxes_xyxy", self.boxes_xyxy, np.int32, (count, 4))
        self._check("predicted_iou", self.predicted_iou, np.float32, (count,))
        self._check("stability_score", self.stability_score, np.float32, (count,))
        self._check("points_xy", self.points_xy, np.float32, (count, 2))
        num_padding = -self.width % 8
        if num_padding and np.any(self.bits[:, :, -1] & ((1 << num_padding) - 1)):
            raise ValueError(f"image {self.image_id}: bits expects zero padding bits right of column {self.width - 1}")
        if np.any(self.area < 0) or np.any(self.area > self.height * self.width):
            raise ValueError(f"image {self.image_id}: area expects 0 to {self.height * self.width} pixels")

    def _check(self, name: str, array: NDArray[Any], dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        if array.dtype != dtype or array.shape != shape:
            raise ValueError(
                f"image {self.image_id}: {name} expects {np.dtype(dtype)} {list(shape)}, "
                f"got {array.dtype} {list(array.shape)}"
            )

    @classmethod
    def from_masks(
        cls,
        image_id: int,
        masks: NDArray[np.bool_],
        predicted_iou: ArrayLike,
        stability_score: ArrayLike,
        points_xy: ArrayLike,
    ) -> Candidates:
        """Pack `masks`, bool [M, H, W], and compute their areas and boxes.

        `predicted_iou` [M], `stability_score` [M] and `points_xy` [M, 2] are converted to float32. ValueError where
        `masks` is not boolean with three axes or a count differs.
        """
        if masks.dtype != np.bool_ or masks.ndim != 3:
            raise ValueError(f"image {image_id}: masks expects bool [M, H, W], got {masks.dtype} {list(masks.shape)}")
        num_masks, height, width = masks.shape
        bits = pack_rows(masks)
        return cls(
            image_id=int(image_id),
            height=height,
            width=width,
            bits=bits,
            area=packed_areas(bits),
            boxes_xyxy=packed_boxes(bits, width=width),
            predicted_iou=np.asarray(predicted_iou, np.float32),
            stability_score=np.asarray(stability_score, np.float32),
            # An empty list has shape [0]; the store wants [0, 2].
            points_xy=np.asarray(points_xy, np.float32).reshape(num_masks, 2),
        )

    @property
    def num_masks(self) -> int:
        """M, the number of candidates."""
        return len(self.bits)

    def masks(self) -> NDArray[np.bool_]:
        """All candidates unpacked, bool [M, height, width]."""
        return unpack_rows(self.bits, width=self.width)

    def flat_bits(self) -> NDArray[np.uint8]:
        """All candidates laid flat, uint8 [M, ceil(height * width / 8)]: rows follow each other without padding bits,
        as matching takes them."""
        flat = np.empty((self.num_masks, -(-self.height * self.width // 8)), np.uint8)
        for row, bits in zip(flat, self.bits, strict=True):  # one by one: unpacked, they are eight times as large
            row[:] = pack_flat(unpack_rows(bits[None], width=self.width))[0]
        return flat
