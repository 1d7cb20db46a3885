"""Counts of labels on a case small enough to do by hand."""

import torch
from torch import Tensor

from semires.pipeline.audit.label_counts import GroupScores, LabelCounts, label_scores
from semires.stages.train.reading.samples import Batch

SIZE = 4


def columns(*numbers: int) -> Tensor:
    """A mask of whole columns, 4 pixels each."""
    mask = torch.zeros(SIZE, SIZE, dtype=torch.bool)
    mask[:, list(numbers)] = True
    return mask


def batch_of(masks: list[Tensor], image_ids: list[int], ann_ids: list[int]) -> Batch:
    num, nothing = len(masks), torch.zeros(0, 2, dtype=torch.int64)
    return Batch(
        images=torch.zeros(num, 3, SIZE, SIZE, dtype=torch.uint8),
        masks=torch.stack(masks),
        has_mask=torch.tensor([bool(mask.any()) for mask in masks]),
        input_ids=torch.zeros(num, 2, dtype=torch.int64),
        attention_mask=torch.zeros(num, 2, dtype=torch.int64),
        other_input_ids=nothing,
        other_attention_mask=nothing,
        other_of=nothing[:, 0],
        candidates=torch.zeros(0, 2, dtype=torch.uint8),
        offsets=torch.zeros(num + 1, dtype=torch.int64),
        ref_ids=torch.arange(num),
        image_ids=torch.tensor(image_ids),
        ann_ids=torch.tensor(ann_ids),
    )


# Image 1: objects in columns 0 (two refs), 1 and 2 to 3. Image 2: one in column 0.
TRUTHS = [columns(0), columns(0), columns(1), columns(2, 3), columns(0)]
BATCH = batch_of(TRUTHS, [1, 1, 1, 1, 2], [10, 10, 11, 12, 10])
TEACHER = torch.stack([columns(0, 1), columns(0), columns(2), columns(2), columns(3)])


def half_more(mask: Tensor) -> Tensor:
    """The mask and half of column 1."""
    mask = mask.clone()
    mask[:2, 1] = True
    return mask


# Only its own; half of another (not more); a wrong one; own and two others; nothing.
REFINED = torch.stack([columns(0), half_more(columns(0)), columns(0), columns(0, 1, 2, 3), columns()])
MATCHED = torch.tensor([True, True, False, True, False])


def test_label_counts__by_hand() -> None:
    counts = LabelCounts.of(REFINED, MATCHED, BATCH)
    assert counts.intersections.tolist() == [4, 4, 0, 8, 0]
    assert counts.unions.tolist() == [4, 6, 8, 16, 4]
    assert counts.matched.tolist() == MATCHED.tolist()
    assert counts.num_objects.tolist() == [1, 1, 1, 3, 0]
    assert counts.covers_own.tolist() == [True, True, False, True, False]
    before = LabelCounts.of(TEACHER, None, BATCH)
    assert before.num_objects.tolist() == [2, 1, 0, 0, 0]  # half of columns 2 and 3 is not more than half
    assert not before.matched.any()


def test_label_scores__by_hand() -> None:
    before, after = LabelCounts.of(TEACHER, None, BATCH), LabelCounts.of(REFINED, MATCHED, BATCH)
    groups = {
        "some": torch.tensor([True, False, False, True, False]),
        "no": torch.zeros(5, dtype=torch.bool),
    }
    scores = label_scores(after, before, groups, is_matched=True)
    # IoU before: 1/2, 1, 0, 1/2, 0; after: 1, 2/3, 0, 1/2, 0.
    assert (scores.positive, scores.negative, scores.none) == (1, 1, 3)
    assert (scores.matched, scores.two_objects, scores.wrong_object) == (3, 1, 1)
    assert scores.by_group == {
        "all": GroupScores(num_refs=5, miou=100 * (1 + 4 / 6 + 0.5) / 5, oiou=100 * 16 / 38),
        "some": GroupScores(num_refs=2, miou=75.0, oiou=100 * 12 / 20),
    }
    own = label_scores(before, before, groups, is_matched=False)
    assert (own.positive, own.negative, own.none, own.matched) == (0, 0, 5, None)


def test_label_counts__joined_is_that_of_the_whole() -> None:
    whole = LabelCounts.of(REFINED, MATCHED, BATCH)
    parts = []
    for rows in (slice(0, 4), slice(4, 5)):
        part = batch_of(TRUTHS[rows], BATCH.image_ids[rows].tolist(), BATCH.ann_ids[rows].tolist())
        parts.append(LabelCounts.of(REFINED[rows], MATCHED[rows], part))
    for name, values in vars(LabelCounts.joined(parts)).items():
        assert torch.equal(values, getattr(whole, name)), name
