"""What is counted of pseudo-labels against the hidden masks, label by label, and what the counts come to.

Axes: R refs, B of a batch, S side of the images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from semires.stages.train.metrics import ious_from_counts, scores_from_counts
from semires.stages.train.reading.samples import Batch


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """Of each label whose true mask is known, on the CPU: pixels that it shares with the mask and that either has,
    whether it was matched (all False where nothing is matched), and of how many of the image's objects, and whether of
    its own, it covers more than half; int64 [R], bool [R].

    Objects are those that refs of the batch mean and whose masks are known: those of the image without are not known.
    """

    intersections: Tensor
    unions: Tensor
    matched: Tensor
    num_objects: Tensor
    covers_own: Tensor

    @classmethod
    def of(cls, labels: Tensor, matched: Tensor | None, batch: Batch) -> "LabelCounts":
        """Those of `labels`, bool [B, S, S], of a batch of whole images. matched: bool [B] or None."""
        covers, rows = _covers(labels, batch), batch.has_mask.cpu()
        return cls(
            intersections=(labels & batch.masks).sum(dim=(1, 2)).cpu()[rows],
            unions=(labels | batch.masks).sum(dim=(1, 2)).cpu()[rows],
            matched=torch.zeros(int(rows.sum()), dtype=torch.bool) if matched is None else matched.cpu()[rows],
            num_objects=covers[:, _first_of_objects(batch)].sum(dim=1)[rows],
            covers_own=covers.diagonal()[rows],
        )

    @classmethod
    def joined(cls, parts: Sequence["LabelCounts"]) -> "LabelCounts":
        """Those of several batches, one after another."""
        return cls(**{field.name: torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)})


def _covers(labels: Tensor, batch: Batch) -> Tensor:
    """Whether label b has more than half of the object of sample c of the same image, bool [B, B] on the CPU."""
    # Products of zeros and ones: exact in float32 up to 2^24 pixels.
    truths = batch.masks.flatten(1).float()
    shared = labels.flatten(1).float() @ truths.T
    is_most = (2 * shared > truths.sum(dim=1)).cpu()
    return is_most & (batch.image_ids[:, None] == batch.image_ids)


def _first_of_objects(batch: Batch) -> list[int]:
    """A sample of each object: refs of one annotation mean one."""
    objects = zip(batch.image_ids.tolist(), batch.ann_ids.tolist(), strict=True)
    return list({found: sample for sample, found in reversed(list(enumerate(objects)))}.values())


@dataclass(frozen=True, kw_only=True)
class GroupScores:
    """mIoU and oIoU in per cent of the labels of some refs."""

    num_refs: int
    miou: float
    oiou: float


@dataclass(frozen=True, kw_only=True)
class LabelScores:
    """What a refinement comes to.

    positive, negative, none: labels whose IoU with the true mask is higher than, lower than and the same as that of the
    teacher's own label (the paper's figure 6). matched: labels that a candidate qualified for; None where nothing is
    matched. two_objects: labels that cover more than half of each of two or more objects; wrong_object: of another
    ref's, but not of their own. by_group: of "all" refs and of each group of them that has any.
    """

    positive: int
    negative: int
    none: int
    matched: int | None
    two_objects: int
    wrong_object: int
    by_group: dict[str, GroupScores]


def label_scores(
    counts: LabelCounts, teacher: LabelCounts, groups: Mapping[str, Tensor], *, is_matched: bool
) -> LabelScores:
    """Scores of labels beside those of the teacher alone. groups: which refs are in each, bool [R]."""
    before, after = (ious_from_counts(found.intersections, found.unions) for found in (teacher, counts))
    positive, negative = int((after > before).sum()), int((after < before).sum())
    everything = torch.ones(len(after), dtype=torch.bool)
    by_group = {}
    for name, rows in {"all": everything, **groups}.items():
        if rows.any():
            scores = scores_from_counts(counts.intersections[rows], counts.unions[rows])
            by_group[name] = GroupScores(num_refs=scores.num_samples, miou=scores.miou, oiou=scores.oiou)
    return LabelScores(
        positive=positive,
        negative=negative,
        none=len(after) - positive - negative,
        matched=int(counts.matched.sum()) if is_matched else None,
        two_objects=int((counts.num_objects > 1).sum()),
        wrong_object=int(((counts.num_objects > 0) & ~counts.covers_own).sum()),
        by_group=by_group,
    )
