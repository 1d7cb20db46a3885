"""Parts of a split that are scored by themselves: the smallest objects, short and long expressions, words of place.

Axes: E expressions.
"""

import math
import re
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from semires.stages.data.place_words import LEFT_RIGHT, OTHER_PLACES

SMALLEST = (0.05, 0.10)
"""Shares of the refs, the smallest by mask area, as in the paper's Table 9."""
LENGTHS = ((1, 2), (3, 5), (6, None))
"""First and last number of words, between blanks."""
NAMES = (
    *("smallest 5%", "smallest 10%"),
    *("1-2 words", "3-5 words", "6+ words"),
    *("left or right", "other place", "no place"),
)
"""All that `subsets` may find."""


def subsets(
    ref_ids: NDArray[np.int64],
    areas: NDArray[np.int64],
    expressions: Sequence[str],
    meaningless: Collection[int] = (),
) -> dict[str, NDArray[np.bool_]]:
    """Name -> which expressions are in it, bool [E]; subsets without any are left out.

    ref_ids, areas: int64 [E], an expression's ref and the pixels of its mask. meaningless: ids of refs that mean no
    object (gRefCOCO), which are not among the smallest. Of each share of the others the number is rounded up; of refs
    of one area those with the lower ids come first. An expression has a word of place where one of its words is such a
    word, whatever its case.
    """
    is_sized = ~np.isin(ref_ids, list(meaningless))
    found = {f"smallest {share:.0%}": _of_smallest(ref_ids, areas, is_sized, share) for share in SMALLEST}
    lengths = np.array([len(text.split()) for text in expressions])
    for first, last in LENGTHS:
        name = f"{first}+ words" if last is None else f"{first}-{last} words"
        found[name] = (lengths >= first) & (lengths <= (last or math.inf))
    words = [frozenset(re.findall(r"\w+", text.lower())) for text in expressions]
    left_right = np.array([bool(of_text & LEFT_RIGHT) for of_text in words])
    other = np.array([bool(of_text & OTHER_PLACES) for of_text in words]) & ~left_right
    found |= {"left or right": left_right, "other place": other, "no place": ~left_right & ~other}
    return {name: mask for name, mask in found.items() if mask.any()}


def _of_smallest(
    ref_ids: NDArray[np.int64], areas: NDArray[np.int64], is_sized: NDArray[np.bool_], share: float
) -> NDArray[np.bool_]:
    refs, firsts = np.unique(ref_ids, return_index=True)
    refs, firsts = refs[is_sized[firsts]], firsts[is_sized[firsts]]
    smallest = np.argsort(areas[firsts], kind="stable")[: math.ceil(share * len(refs))]
    return np.isin(ref_ids, refs[smallest])
