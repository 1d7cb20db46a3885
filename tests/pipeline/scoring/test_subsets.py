import numpy as np
import pytest

from semires.pipeline.scoring.subsets import subsets


def of(expressions: list[str]) -> dict[str, list[int]]:
    """Name -> the numbers of the expressions in each subset."""
    ids = np.arange(len(expressions))
    return {name: np.flatnonzero(mask).tolist() for name, mask in subsets(ids, ids, expressions).items()}


def test_subsets__smallest_are_refs_with_all_their_expressions() -> None:
    ref_ids = np.repeat(np.arange(40), 2)
    areas = np.repeat(1 + np.arange(40)[::-1], 2)  # the last refs are the smallest
    found = subsets(ref_ids, areas, ["a"] * 80)
    assert np.unique(ref_ids[found["smallest 5%"]]).tolist() == [38, 39]
    assert np.unique(ref_ids[found["smallest 10%"]]).tolist() == [36, 37, 38, 39]
    assert found["smallest 10%"].sum() == 8


def test_subsets__refs_that_mean_nothing_are_not_the_smallest() -> None:
    areas = np.array([0, 0, 5, 3, 0])
    found = subsets(np.arange(5), areas, ["a"] * 5, [0, 1, 4])
    assert np.flatnonzero(found["smallest 10%"]).tolist() == [3]
    # An object of which nothing is left at the model's size is the smallest there is.
    assert np.flatnonzero(subsets(np.arange(5), areas, ["a"] * 5, [0, 1])["smallest 10%"]).tolist() == [4]
    assert "smallest 5%" not in subsets(np.arange(3), areas[:3], ["a"] * 3, [0, 1, 2])


@pytest.mark.parametrize(("num_refs", "expected"), [(1, [0]), (20, [0]), (21, [0, 1]), (40, [0, 1])])
def test_subsets__shares_are_rounded_up_and_ties_go_by_id(num_refs: int, expected: list[int]) -> None:
    found = subsets(np.arange(num_refs), np.full(num_refs, 7), ["a"] * num_refs)
    assert np.flatnonzero(found["smallest 5%"]).tolist() == expected


def test_subsets__length_in_words() -> None:
    found = of(["man", "the man", "the red  man", "a b c d e", "a b c d e f", "a b c d e f g"])
    assert found["1-2 words"] == [0, 1]
    assert found["3-5 words"] == [2, 3]
    assert found["6+ words"] == [4, 5]


def test_subsets__words_of_place_each_expression_once() -> None:
    found = of(["LEFT man!", "man on top, right", "bottom-most", "man in front.", "man", "bright topping", "左边的人"])
    assert found["left or right"] == [0, 1]
    assert found["other place"] == [2, 3]
    assert found["no place"] == [4, 5, 6]


def test_subsets__empty_ones_are_left_out() -> None:
    assert set(of(["man"])) == {"smallest 5%", "smallest 10%", "1-2 words", "no place"}
