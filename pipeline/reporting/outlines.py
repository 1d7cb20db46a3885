"""Masks as outlines in SVG: exact to the pixel, sharp at any size, and hit by a pointer as they are drawn.

Axes: H, W an image's sides, C corners.
"""

import numpy as np
from numpy.typing import NDArray


def outline(mask: NDArray[np.bool_]) -> str:
    """The path, for an even-odd fill, of the pixels of bool [H, W], in pixels with the origin at the upper left corner;
    "" of an empty mask. A mask of one pixel is "M0 0H1V1H0Z"."""
    corners = _corners(mask)
    beside, below = _partners(corners, along=1), _partners(corners, along=0)
    rows, columns = corners.T.tolist()
    left = [True] * len(corners)
    parts = []
    for first in range(len(corners)):
        if not left[first]:
            continue
        parts.append(f"M{columns[first]} {rows[first]}")
        corner = first
        while left[corner]:
            turn = beside[corner]
            left[corner] = left[turn] = False
            corner = below[turn]
            parts.append(f"H{columns[turn]}" if corner == first else f"H{columns[turn]}V{rows[corner]}")
        parts.append("Z")
    return "".join(parts)


def _corners(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows and columns, int64 [C, 2], of the points of which an odd number of the four pixels around is in the mask: an
    edge along the row ends there and one along the column. Where two pixels touch at a point alone, edges go through.
    """
    padded = np.pad(mask, 1)
    return np.argwhere(padded[1:, 1:] ^ padded[1:, :-1] ^ padded[:-1, 1:] ^ padded[:-1, :-1])


def _partners(corners: NDArray[np.int64], *, along: int) -> list[int]:
    """Of each corner the one at the other end of its edge along the row (1) or along the column (0)."""
    order = np.lexsort((corners[:, along], corners[:, 1 - along]))
    partners = np.empty(len(corners), np.int64)
    partners[order[0::2]], partners[order[1::2]] = order[1::2], order[0::2]
    found: list[int] = partners.tolist()
    return found
