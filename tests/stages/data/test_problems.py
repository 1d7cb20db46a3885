import pytest

from semires.stages.data.problems import ReferProblems, splits_of


def test_splits_of__as_refer_understands_test() -> None:
    names = ["train", "testA", "testB", "val"]
    assert splits_of("test", names) == ["testA", "testB"]
    assert splits_of("testA", names) == ["testA"]
    assert splits_of("dev", names) == []


@pytest.mark.parametrize(
    ("num_refs", "num_lost", "expected"), [(300, 3, False), (300, 4, True), (99, 1, True), (1, 1, True), (5, 0, False)]
)
def test_too_many_lost__above_one_per_cent(num_refs: int, num_lost: int, expected: bool) -> None:
    ids = tuple(range(num_lost))
    problems = ReferProblems(no_mask=ids, num_refs={"val": num_refs, "testA": 200}, dropped_of={"val": ids})
    assert problems.lost("val") == ids
    assert problems.too_many_lost("val") == expected
    assert not problems.too_many_lost("testA")


def test_lost__of_both_tests() -> None:
    problems = ReferProblems(
        no_image_file=(2, 5),
        no_mask=(3,),
        num_refs={"testA": 100, "testB": 200},
        dropped_of={"testB": (2, 3), "testA": (5,)},
    )
    assert problems.lost("test") == (2, 3, 5)
    assert problems.num_refs_of("test") == 300
    assert not problems.too_many_lost("test")
    assert problems.too_many_lost("testA") is False
    assert problems.num_dropped == 3
