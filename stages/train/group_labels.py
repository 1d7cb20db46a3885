"""What a ref's expressions and an image's refs say about each other's pseudo-labels, without any mask.

Consensus: the expressions of a ref mean one object, so their probabilities are averaged. Competition: the refs of an
image mean different objects, so a pixel is left to the ref that is most probable there. Neither is in the paper.

Axes: B samples, N further expressions of their refs, S side of the images.
"""

from collections import Counter
from dataclasses import dataclass
from itertools import permutations
from typing import Literal, get_args

import torch
from torch import Tensor

from semires.stages.data.errors import InputError

Compete = Literal["pixels", "none"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """How the refs of an image are labeled together.

    expressions: how many expressions of a ref the teacher reads, its mean probability being the label's; None: all. A
    teacher's forward pass each. compete: whether the refs of an image compete for its "pixels" or "none" do. most_refs:
    of an image with more refs so many at most are labeled together; None: as many as a batch holds.

    InputError for values that mean nothing.
    """

    expressions: int | None = 2
    compete: Compete = "pixels"
    most_refs: int | None = None

    def __post_init__(self) -> None:
        if self.compete not in get_args(Compete):
            raise InputError(f"--compete: expected one of {', '.join(get_args(Compete))}, found {self.compete!r}")
        for name, option in (("expressions", "--expressions"), ("most_refs", "--most-refs")):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"{option}: expected 1 or more, found {value}")


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
