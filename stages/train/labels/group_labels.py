"""What a ref's expressions and an image's refs say about each other's pseudo-labels, without any mask.

Consensus: the expressions of a ref mean one object, so their probabilities are averaged. Competition: the refs of an
image mean different objects, so a pixel is left to the ref that is most probable there. Presence: a ref means
something, so where nothing is probable its most probable pixels are its label. None of them is in the paper.

Axes: B samples, N further expressions of their refs, S side of the images.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import torch
from torch import Tensor

from semires.stages.data.errors import InputError
from semires.stages.train.engine.transfer import moved
from semires.stages.train.labels.teacher import EmaTeacher
from semires.stages.train.models.normalization import normalize
from semires.stages.train.reading.samples import Batch

Compete = Literal["pixels", "none"]
LabelMean = Literal["labels", "kinds"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """How the refs of an image are labeled together.

    expressions: how many expressions of a ref the teacher reads, its mean probability being the label's; None: all. A
    teacher's forward pass each. compete: whether the refs of an image compete for its "pixels" or "none" do.
    label_floor: a pixel is labeled above this share of the ref's highest probability where that is below 0.5, so that
    a ref does not lose its label; 0: only above 0.5, as in the paper. label_mean: of matched and unmatched labels the
    loss is the mean over all "labels", or as in the public code the mean of the two "kinds", in which the few unmatched
    ones count as much as all others. most_refs: of an image with more refs so many at most are labeled together; None:
    as many as a batch holds.

    InputError for values that mean nothing.
    """

    expressions: int | None = 2
    compete: Compete = "pixels"
    label_floor: float = 0.7
    label_mean: LabelMean = "labels"
    most_refs: int | None = None

    def __post_init__(self) -> None:
        for name, kind in (("compete", Compete), ("label_mean", LabelMean)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(
                    f"--{name.replace('_', '-')}: expected one of {', '.join(get_args(kind))}, found "
                    f"{getattr(self, name)!r}"
                )
        for name, option in (("expressions", "--expressions"), ("most_refs", "--most-refs")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{option}: expected 1 or more, found {value}")
        if not 0 <= self.label_floor < 1:
            raise InputError(f"--label-floor: expected a share from 0 to below 1, found {self.label_floor}")


def expression_probs(
    teacher: EmaTeacher, images: Tensor, batch: Batch, at_once: int | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """What the teacher says of each expression of a batch, which may be empty: labels bool [B, S, S] and probabilities
    float [B, S, S] of those that the student reads, probabilities [N, S, S] of the further ones.

    images: float32 [B, 3, S, S] in [0, 1], the weak view. at_once: forward passes of so many expressions; None: of all.
    """
    input_ids, attention_mask, num_others = batch.input_ids, batch.attention_mask, len(batch.other_of)
    image_of = torch.arange(len(batch))
    if num_others:
        input_ids = torch.cat([input_ids, batch.other_input_ids])
        attention_mask = torch.cat([attention_mask, batch.other_attention_mask])
        image_of = torch.cat([image_of, batch.other_of])
    labels, probs = [images.new_zeros(0, *images.shape[2:], dtype=torch.bool)], [images.new_zeros(0, *images.shape[2:])]
    for start in range(0, len(image_of), at_once or max(len(image_of), 1)):
        rows = slice(start, start + at_once) if at_once else slice(None)
        # Without further expressions no image is copied.
        shown = images.index_select(0, moved(image_of[rows], images.device)) if num_others else images[rows]
        label, prob = teacher.pseudo_label(normalize(shown), input_ids[rows], attention_mask[rows])
        labels.append(label)
        probs.append(prob)
    label, prob = torch.cat(labels), torch.cat(probs)
    return label[: len(batch)], prob[: len(batch)], prob[len(batch) :]


def mean_over_expressions(prob: Tensor, other_prob: Tensor, other_of: Tensor) -> Tensor:
    """The mean probability of each sample's expressions, [B, S, S].

    prob: float [B, S, S], of the expressions that the student reads. other_prob: [N, S, S], of further ones. other_of:
    int64 [N] on the CPU, the sample that each is of.
    """
    total, samples = prob.clone(), other_of.tolist()
    # One by one: added by an index in one call, CUDA would take them in any order, and sums would differ in a bit.
    for row, sample in enumerate(samples):
        total[sample] += other_prob[row]
    for sample, num_others in Counter(samples).items():
        total[sample] /= 1 + num_others
    return total


def group_labels(prob: Tensor, image_ids: Tensor, ann_ids: Tensor, *, compete: Compete, label_floor: float) -> Tensor:
    """The labels of the refs of whole images, bool [B, S, S].

    prob: float [B, S, S], of each ref. image_ids, ann_ids: int64 [B] on the CPU. Where refs compete, a pixel counts for
    the most probable ref of the image alone, for several where they are equal. It is labeled where its probability is
    above 0.5, or above `label_floor` times the ref's highest where that is less: a ref keeps a label unless another is
    more probable everywhere. Worked: the highest is 0.4, the floor 0.7; pixels above 0.28 are labeled.
    """
    if compete == "pixels":
        prob = prob.masked_fill(prob < highest_rival(prob, image_ids, ann_ids), 0.0)
    if not label_floor:
        return prob > 0.5
    return prob > (prob.amax(dim=(1, 2), keepdim=True) * label_floor).clamp(max=0.5)


def highest_rival(prob: Tensor, image_ids: Tensor, ann_ids: Tensor) -> Tensor:
    """The highest probability that another ref of the image has in each pixel, [B, S, S]; 0 where there is no other.

    prob: float [B, S, S]. image_ids, ann_ids: int64 [B] on the CPU, where they decide what is launched, so that a GPU
    is not waited for. Refs of one annotation are one ref: they are no rivals.
    """
    rival = torch.zeros_like(prob)
    ids = list(zip(image_ids.tolist(), ann_ids.tolist(), strict=True))
    for (sample, (image, ann)), (other, (other_image, other_ann)) in permutations(enumerate(ids), 2):
        if image == other_image and ann != other_ann:
            torch.maximum(rival[sample], prob[other], out=rival[sample])
    return rival
