from itertools import groupby

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from semires.stages.data.refer import ReferDataset
from semires.stages.train.reading.sampling import even_bounds, every_expression, image_bounds, image_plan, training_plan


@pytest.fixture
def num_expressions(refshapes: ReferDataset) -> NDArray[np.int64]:
    return np.array([len(ref.expressions) for ref in refshapes.refs_of("train")])


def test_every_expression__all_in_order(num_expressions: NDArray[np.int64]) -> None:
    keys = every_expression(num_expressions)
    assert keys.dtype == np.int64
    assert keys.tolist() == [[index, n] for index, count in enumerate(num_expressions) for n in range(count)]


def plain_plan(num_expressions: NDArray[np.int64], batch_size: int, num_steps: int, seed: int) -> list[list[list[int]]]:
    """As the first version drew it, one by one; runs begun with it go on."""
    rng = np.random.default_rng(seed)
    keys: list[list[int]] = []
    while len(keys) < num_steps * batch_size:
        for index in rng.permutation(len(num_expressions)).tolist():
            keys.append([index, int(rng.integers(num_expressions[index]))])
    return [keys[step * batch_size : (step + 1) * batch_size] for step in range(num_steps)]


@pytest.mark.parametrize(("most", "batch_size", "num_steps"), [(1, 4, 9), (3, 1, 50), (5, 7, 40), (9, 100, 3)])
def test_training_plan__bit_for_bit_as_drawn_one_by_one(most: int, batch_size: int, num_steps: int) -> None:
    for seed in range(5):
        num_expressions = np.random.default_rng(seed).integers(1, most + 1, 37)
        plan = training_plan(num_expressions, batch_size, num_steps, seed)
        assert plan.dtype == np.int64
        assert plan.tolist() == plain_plan(num_expressions, batch_size, num_steps, seed)


def test_training_plan__same_seed_same_plan(num_expressions: NDArray[np.int64]) -> None:
    plan = training_plan(num_expressions, 4, 30, seed=1)
    assert plan.shape == (30, 4, 2)
    assert np.array_equal(plan, training_plan(num_expressions, 4, 30, seed=1))
    assert not np.array_equal(plan, training_plan(num_expressions, 4, 30, seed=2))


@pytest.mark.parametrize("batch_size", [1, 5, 7])
def test_training_plan__every_ref_once_a_pass(num_expressions: NDArray[np.int64], batch_size: int) -> None:
    keys = training_plan(num_expressions[:12], batch_size, 50, seed=0).reshape(-1, 2)
    passes = [keys[start : start + 12, 0].tolist() for start in range(0, len(keys) - 11, 12)]
    assert len(passes) >= 4
    for indices in passes:
        assert sorted(indices) == list(range(12))
    assert len({tuple(indices) for indices in passes}) == len(passes)


def test_training_plan__draws_among_all_expressions(num_expressions: NDArray[np.int64]) -> None:
    several = num_expressions[num_expressions > 1][:2]
    drawn = training_plan(several, 2, 60, seed=0).reshape(-1, 2)
    assert sorted(set(map(tuple, drawn.tolist()))) == list(map(tuple, every_expression(several).tolist()))


def test_training_plan__a_longer_one_begins_alike(num_expressions: NDArray[np.int64]) -> None:
    whole = training_plan(num_expressions, 4, 40, seed=0)
    assert np.array_equal(training_plan(num_expressions, 4, 25, seed=0), whole[:25])


def test_training_plan__more_samples_a_step_than_refs(num_expressions: NDArray[np.int64]) -> None:
    (batch,) = training_plan(num_expressions[:2], 5, 1, seed=0)
    assert len(batch) == 5
    assert set(batch[:, 0].tolist()) == {0, 1}


Refs = tuple[NDArray[np.int64], NDArray[np.int64]]


@st.composite
def refs(draw: st.DrawFn) -> Refs:
    """(num_expressions, image_ids) of refs whose images are mixed as in REFER's files."""
    of_images = draw(st.lists(st.integers(1, 9), min_size=1, max_size=12))
    image_ids = draw(st.permutations([10 * n for n, num_refs in enumerate(of_images) for _ in range(num_refs)]))
    num_expressions = draw(st.lists(st.integers(1, 5), min_size=len(image_ids), max_size=len(image_ids)))
    return np.array(num_expressions), np.array(image_ids)


@given(
    refs=refs(),
    batch_size=st.integers(1, 14),
    num_passes=st.integers(1, 3),
    most_refs=st.sampled_from([None, 1, 2, 5, 100]),
    most_expressions=st.sampled_from([None, 1, 2, 7]),
    seed=st.integers(0, 5),
)
def test_image_plan__whole_images_every_ref_once_a_pass(
    refs: Refs, batch_size: int, num_passes: int, most_refs: int | None, most_expressions: int | None, seed: int
) -> None:
    num_expressions, image_ids = refs
    plan = image_plan(
        num_expressions,
        image_ids,
        batch_size=batch_size,
        num_passes=num_passes,
        most_refs=most_refs,
        most_expressions=most_expressions,
        seed=seed,
    )
    assert all(0 < len(batch) <= batch_size for batch in plan)
    keys = np.concatenate(plan)
    assert keys.dtype == np.int64
    assert len(keys) == num_passes * len(image_ids)
    for start in range(0, len(keys), len(image_ids)):
        assert sorted(keys[start : start + len(image_ids), 0].tolist()) == list(range(len(image_ids)))
    most = min(most_refs or batch_size, batch_size)
    for number, batch in enumerate(plan):
        for image_id, group in groupby(image_ids[batch[:, 0]].tolist()):
            num_refs = int((image_ids == image_id).sum())
            # An image that fits into a batch is never cut, unless it is to be, or the next pass begins with it again.
            if num_refs <= most:
                assert len(list(group)) % num_refs == 0, (number, image_id)
    for ref, *expressions in keys.tolist():
        drawn = [expression for expression in expressions if expression >= 0]
        assert len(set(drawn)) == len(drawn) == min(num_expressions[ref], most_expressions or 100)
        assert all(expression < num_expressions[ref] for expression in drawn)
        assert expressions == drawn + [-1] * (len(expressions) - len(drawn))


def plan_of(seed: int, **changes: int) -> list[NDArray[np.int64]]:
    rng = np.random.default_rng(0)
    image_ids = np.sort(rng.integers(0, 300, 900))
    settings = {"batch_size": 12, "num_passes": 4, "most_expressions": 2} | changes
    return image_plan(rng.integers(1, 5, 900), image_ids, **settings, seed=seed)


def test_image_plan__same_seed_same_plan() -> None:
    one, again, other = plan_of(1), plan_of(1), plan_of(2)
    assert all(np.array_equal(first, second) for first, second in zip(one, again, strict=True))
    assert not np.array_equal(np.concatenate(one)[:100], np.concatenate(other)[:100])


def test_image_plan__batches_are_nearly_full_and_each_pass_is_another() -> None:
    plan = plan_of(0)
    assert np.mean([len(batch) for batch in plan]) > 10  # images of three refs, on average
    order = np.concatenate(plan)[:, 0]
    assert not np.array_equal(order[:900], order[900:1800])


def test_image_plan__draws_among_all_expressions() -> None:
    plan = image_plan(np.array([4, 1]), np.array([3, 3]), batch_size=2, num_passes=80, most_expressions=2, seed=0)
    drawn = {tuple(expressions) for ref, *expressions in np.concatenate(plan).tolist() if ref == 0}
    assert drawn == {(a, b) for a in range(4) for b in range(4) if a != b}


def test_image_plan__parts_of_a_large_image_are_of_about_one_size() -> None:
    plan = image_plan(np.ones(7, int), np.zeros(7, int), batch_size=3, num_passes=50, most_refs=3, seed=0)
    assert {len(batch) for batch in plan} == {2, 3}
    assert len(plan) == 150  # three parts a pass
    assert len({tuple(sorted(batch[:, 0])) for batch in plan}) > 20  # random ones


@given(image_ids=st.lists(st.integers(0, 5), min_size=1, max_size=14).map(sorted), world_size=st.integers(1, 6))
def test_image_bounds__cut_between_images_only(image_ids: list[int], world_size: int) -> None:
    bounds = image_bounds(np.array(image_ids), world_size)
    assert len(bounds) == world_size + 1
    assert (bounds[0], bounds[-1]) == (0, len(image_ids))
    assert list(bounds) == sorted(bounds)
    for bound in bounds[1:-1]:
        assert bound in (0, len(image_ids)) or image_ids[bound - 1] != image_ids[bound]
    largest_image = max(image_ids.count(image_id) for image_id in image_ids)
    for bound, even in zip(bounds, even_bounds(len(image_ids), world_size), strict=True):
        assert abs(bound - even) <= largest_image / 2
