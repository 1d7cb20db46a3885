"""The labels of every refinement against a plain, slow transcription."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semires.pipeline.audit.refinements import (
    Refinement,
    match_name,
    most_expressions,
    refined_labels,
    refinements,
)
from semires.pipeline.audit.unlabeled import whole_images
from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.group_labels import GroupConfig
from semires.stages.train.matching import MatchConfig, unpack_bits
from semires.stages.train.matching.reference import match_reference
from semires.stages.train.reading.samples import Batch, RefSamples

CONFIG = TrainConfig(split="refshapes", model="nano", match=MatchConfig(strategy="cpi", inter1=0.6, inter2=0.4))


def slow_labels(batch: Batch, prob: Tensor, other_prob: Tensor, refinement: Refinement) -> tuple[Tensor, Tensor]:
    """Ref by ref and in words of the definition; probabilities are sixteenths, so that no order of sums matters."""
    means = []
    for sample in range(len(batch)):
        others = [other_prob[n] for n, of in enumerate(batch.other_of.tolist()) if of == sample]
        read = [prob[sample], *others]
        if refinement.expressions is not None:
            read = read[: refinement.expressions]
        means.append(sum(read[1:], read[0]) / len(read))
    labels = []
    for sample, mean in enumerate(means):
        own = mean.clone()
        if refinement.compete == "pixels":
            for other, rival in enumerate(means):
                is_rival = (
                    batch.image_ids[other] == batch.image_ids[sample] and batch.ann_ids[other] != batch.ann_ids[sample]
                )
                if is_rival:
                    own[mean < rival] = 0
        labels.append(own > min(0.5, refinement.label_floor * own.max().item() or 0.5))
    label = torch.stack(labels)
    if refinement.match is None:
        return label, torch.zeros(len(batch), dtype=torch.bool)
    candidates = unpack_bits(batch.candidates, label.shape[1])
    if not refinement.is_oracle:
        found = match_reference(candidates, batch.offsets, label, refinement.match)
        return found.refined, found.matched
    best, matched = label.clone(), torch.zeros(len(batch), dtype=torch.bool)
    for sample, truth in enumerate(batch.masks):
        own = candidates[int(batch.offsets[sample]) : int(batch.offsets[sample + 1])]
        ious = [int((one & truth).sum()) / int((one | truth).sum()) for one in own]
        if max(ious, default=0) > 0:
            best[sample], matched[sample] = own[ious.index(max(ious))], True
    return best, matched


def near_truth(batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
    """Probabilities in sixteenths, some refs' strong on another object of the image as well and some faint everywhere,
    as a teacher's are."""
    generator = torch.Generator().manual_seed(seed)

    def draw(of: Tensor) -> Tensor:
        spoilt = torch.rand(len(of), generator=generator) < 0.4
        neighbour = batch.masks.roll(1, dims=0)[of] & spoilt[:, None, None]
        noise = torch.randint(0, 5, (len(of), *batch.masks.shape[1:]), generator=generator)
        faint = 1 + (of % 3 == 2).double()[:, None, None]
        return ((batch.masks[of] | neighbour) * 4 + noise).clamp(max=8).double() / 8 / faint

    return draw(torch.arange(len(batch))), draw(batch.other_of)


@pytest.mark.parametrize("expressions", [1, 2, None])
def test_refined_labels__as_a_plain_transcription(
    samples_of: Callable[..., RefSamples], expressions: int | None
) -> None:
    samples = samples_of()
    chosen = refinements(CONFIG, expressions)
    [keys] = whole_images(samples, most_expressions(chosen), 1000)
    batch = samples.batch(keys[:14])
    batch = dataclasses.replace(batch, ann_ids=batch.ann_ids.clone())
    batch.ann_ids[1] = batch.ann_ids[0]  # two refs of one annotation are no rivals
    prob, other_prob = near_truth(batch, seed=len(chosen))
    seen = set()
    for refinement, (labels, matched) in zip(chosen, refined_labels(batch, prob, other_prob, chosen), strict=True):
        expected, was_matched = slow_labels(batch, prob, other_prob, refinement)
        assert torch.equal(labels, expected), refinement.name
        assert (matched is None) == (refinement.match is None)
        if matched is not None:
            assert torch.equal(matched, was_matched), refinement.name
            assert matched.any()
        if refinement.match is None:
            seen.add(labels.numpy().tobytes())
    assert len(seen) == (3 if expressions == 1 else 5)


def test_refined_labels__of_several_numbers_of_expressions_each_reads_its_own(
    samples_of: Callable[..., RefSamples],
) -> None:
    samples = samples_of()
    [keys] = whole_images(samples, None, 1000)
    batch = samples.batch(keys[:8])
    prob, other_prob = near_truth(batch, seed=1)
    chosen = [Refinement(name=str(number), expressions=number) for number in (None, 1, 3, 2)]
    assert keys.shape[1] > 3
    for refinement, (labels, _) in zip(chosen, refined_labels(batch, prob, other_prob, chosen), strict=True):
        assert torch.equal(labels, slow_labels(batch, prob, other_prob, refinement)[0])


def test_refinements__rows() -> None:
    names = [refinement.name for refinement in refinements(TrainConfig(), 2)]
    assert names == [
        "teacher alone",
        "IOM 0.5",
        "CPI 0.7",
        "CPI-U 0.7",
        "CPI-O 0.7",
        "consensus",
        "consensus, CPI-U 0.7",
        "competition",
        "competition, CPI-U 0.7",
        "consensus + competition",
        "consensus + competition, CPI-U 0.7",
        "consensus + competition + presence",
        "consensus + competition + presence, CPI-U 0.7",
        "best candidate (oracle)",
    ]


CPI_U_9, CPI_SIX_FOUR = MatchConfig(inter1=0.9), MatchConfig(strategy="cpi", inter1=0.6, inter2=0.4)


@pytest.mark.parametrize(
    ("config", "own"),
    [
        (TrainConfig(method="supervised"), None),
        (TrainConfig(match=MatchConfig(inter2=0.1, iou_rate=0.1)), None),  # which CPI-U does not read
        (TrainConfig(match=CPI_U_9), ("CPI-U 0.9", 1, "none")),
        (TrainConfig(match=CPI_SIX_FOUR), ("CPI 0.6/0.4", 1, "none")),
        (TrainConfig(match=CPI_U_9, group=GroupConfig(expressions=None)), ("CPI-U 0.9", 1, "none")),
        (TrainConfig(method="semires-cc"), None),
        (TrainConfig(method="semires-cc", group=GroupConfig(expressions=None)), ("CPI-U 0.7", None, "pixels")),
        (TrainConfig(method="semires-cc", group=GroupConfig(expressions=3, compete="none")), ("CPI-U 0.7", 3, "none")),
    ],
)
def test_refinements__the_runs_own_where_it_is_another(
    config: TrainConfig, own: tuple[str, int | None, str] | None
) -> None:
    chosen, plain = refinements(config, 2), refinements(TrainConfig(), 2)
    assert [row for row in chosen if row in plain] == list(plain)
    added = [row for row in chosen if row not in plain]
    assert len(added) == (own is not None)
    if own is not None:
        assert added[0] is chosen[-2]
        assert added[0].name == f"the run's own, {own[0]}"
        assert (match_name(added[0].match), added[0].expressions, added[0].compete) == own
        assert most_expressions(chosen) == (None if own[1] is None else max(2, own[1]))
