from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.labels.group_labels import GroupConfig, group_labels, highest_rival, mean_over_expressions

SIZE = 3


def probs(num: int, seed: int, values: int) -> Tensor:
    """Probabilities float64 [num, S, S], with ties: of `values` different ones."""
    drawn = torch.randint(0, values, (num, SIZE, SIZE), generator=torch.Generator().manual_seed(seed))
    return drawn.double() / (values - 1)


@given(
    num_others=st.lists(st.integers(0, 3), max_size=6),
    seed=st.integers(0, 9),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_mean_over_expressions__of_each_ref(num_others: list[int], seed: int, dtype: torch.dtype) -> None:
    prob = probs(len(num_others), seed, 100).to(dtype)
    other_prob = probs(sum(num_others), seed + 1, 100).to(dtype)
    other_of = torch.arange(len(num_others)).repeat_interleave(torch.tensor(num_others, dtype=torch.int64))
    given_prob = prob.clone()
    mean = mean_over_expressions(prob, other_prob, other_of)
    assert torch.equal(prob, given_prob)
    assert mean.dtype == dtype
    for sample in range(len(num_others)):
        expected = torch.stack([prob[sample], *other_prob[other_of == sample]]).mean(dim=0)
        torch.testing.assert_close(mean[sample], expected)
        if not num_others[sample]:
            assert torch.equal(mean[sample], prob[sample])


@given(
    ids=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=7),
    seed=st.integers(0, 9),
    values=st.sampled_from([2, 4, 1000]),
)
def test_highest_rival__of_other_annotations_of_the_image(ids: list[tuple[int, int]], seed: int, values: int) -> None:
    prob = probs(len(ids), seed, values)
    image_ids, ann_ids = (torch.tensor([pair[n] for pair in ids], dtype=torch.int64) for n in (0, 1))
    rival = highest_rival(prob, image_ids, ann_ids)
    assert rival.shape == prob.shape
    for b, (image, ann) in enumerate(ids):
        for row in range(SIZE):
            for column in range(SIZE):
                others = [
                    float(prob[c, row, column]) for c, pair in enumerate(ids) if pair[0] == image and pair[1] != ann
                ]
                assert rival[b, row, column] == max(others, default=0.0)


def test_highest_rival__refs_of_one_annotation_leave_each_other_their_pixels() -> None:
    prob = torch.tensor([0.9, 0.6, 0.7])[:, None, None].expand(3, SIZE, SIZE)
    rival = highest_rival(prob, torch.tensor([5, 5, 5]), torch.tensor([1, 1, 2]))
    assert ((prob > 0.5) & (prob >= rival)).all(dim=2).all(dim=1).tolist() == [True, False, False]
    rival = highest_rival(prob, torch.tensor([5, 5, 6]), torch.tensor([1, 1, 2]))
    assert (rival == 0).all()


def test_group_labels__a_ref_keeps_a_label_unless_another_is_more_probable_everywhere() -> None:
    prob = torch.tensor([[0.9, 0.6, 0.1], [0.3, 0.8, 0.4], [0.2, 0.2, 0.39], [0.1, 0.4, 0.28]])[:, None]
    image_ids, ann_ids = torch.tensor([1, 1, 1, 2]), torch.tensor([1, 2, 3, 1])

    def labels(**settings: Any) -> list[list[int]]:
        return group_labels(prob, image_ids, ann_ids, **settings)[:, 0].int().tolist()

    assert labels(compete="none", label_floor=0.0) == [[1, 1, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert labels(compete="pixels", label_floor=0.0) == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    assert labels(compete="none", label_floor=0.7) == [[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 1, 0]]
    assert labels(compete="pixels", label_floor=0.7) == [[1, 0, 0], [0, 1, 0], [0, 0, 0], [0, 1, 0]]
    assert labels(compete="none", label_floor=0.5) == [[1, 1, 0], [0, 1, 0], [1, 1, 1], [0, 1, 1]]


@given(
    ids=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=7),
    seed=st.integers(0, 9),
    values=st.sampled_from([2, 4, 1000]),
    compete=st.sampled_from(["pixels", "none"]),
    label_floor=st.sampled_from([0.0, 0.3, 0.7]),
)
def test_group_labels__pixel_by_pixel(
    ids: list[tuple[int, int]], seed: int, values: int, compete: Any, label_floor: float
) -> None:
    prob = probs(len(ids), seed, values)
    image_ids, ann_ids = (torch.tensor([pair[n] for pair in ids], dtype=torch.int64) for n in (0, 1))
    given_prob = prob.clone()
    label = group_labels(prob, image_ids, ann_ids, compete=compete, label_floor=label_floor)
    assert torch.equal(prob, given_prob)
    rival = highest_rival(prob, image_ids, ann_ids)
    for of_ref, own, against in zip(label, prob, rival, strict=True):
        counted = [
            p if compete == "none" or p >= r else 0.0
            for p, r in zip(own.flatten().tolist(), against.flatten().tolist(), strict=True)
        ]
        limit = min(0.5, label_floor * max(counted)) if label_floor else 0.5
        assert of_ref.flatten().tolist() == [p > limit for p in counted]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"expressions": 0}, "--expressions: expected 1 or more, found 0"),
        ({"most_refs": 0}, "--most-refs: expected 1 or more, found 0"),
        ({"label_floor": 1.0}, "--label-floor: expected a share from 0 to below 1, found 1.0"),
        ({"label_floor": -0.1}, "--label-floor: expected a share from 0 to below 1, found -0.1"),
        ({"label_mean": "all"}, "--label-mean: expected one of labels, kinds, found 'all'"),
        ({"compete": "boxes"}, "--compete: expected one of pixels, none, found 'boxes'"),
    ],
)
def test_group_config__values_that_mean_nothing(values: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError) as error:
        GroupConfig(**values)
    assert str(error.value) == words
