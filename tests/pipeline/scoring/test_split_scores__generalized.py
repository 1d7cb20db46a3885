import numpy as np
import pytest

from semires.pipeline.scoring.counts import SplitCounts
from semires.pipeline.scoring.split_scores import generalized_values
from semires.stages.data.refer import NO_TARGET, Ref


def ref(ref_id: int, *ann_ids: int) -> Ref:
    first, *more = ann_ids or (NO_TARGET,)
    texts = ("one", "two")
    return Ref(
        ref_id=ref_id,
        image_id=ref_id,
        ann_id=first,
        more_ann_ids=tuple(more),
        category_id=1,
        split="val",
        expressions=texts,
        raw_expressions=texts,
    )


def counts(rows: list[tuple[int, int, int, int]]) -> SplitCounts:
    """Of ref id, intersection, union and area of each expression."""
    ref_ids, intersections, unions, areas = np.array(rows, dtype=np.int64).T
    return SplitCounts(ref_ids=ref_ids, image_ids=ref_ids, intersections=intersections, unions=unions, areas=areas)


def test_generalized_values__of_the_refs_that_mean_nothing() -> None:
    # Found whole; found half; nothing there: seen so, and not; several: found whole, and not found at all.
    found = counts([(1, 90, 90, 90), (1, 90, 180, 180), (4, 0, 10, 0), (4, 0, 100, 0), (7, 60, 60, 60), (7, 0, 60, 60)])
    values = generalized_values(found, [ref(1, 10), ref(4), ref(7, 11, 12)])
    assert values is not None
    assert values["giou"] == pytest.approx(100 * (1 + 0.5 + 1 + 0 + 1 + 0) / 6)
    assert values["ciou"] == pytest.approx(100 * (90 + 90 + 60) / (90 + 180 + 100 + 60 + 60))
    assert (values["n_acc"], values["t_acc"]) == (50.0, 75.0)
    assert (values["num_no_target"], values["num_samples"]) == (2, 6)


def test_generalized_values__none_where_every_ref_means_one_object() -> None:
    assert generalized_values(counts([(1, 5, 5, 5)]), [ref(1, 10)]) is None
    assert generalized_values(counts([(1, 5, 5, 5)]), [ref(1, 10, 11)]) is not None
