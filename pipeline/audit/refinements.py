"""Refinements of pseudo-labels, a line of data each, and the labels they make of one pass of the teacher.

Axes: B samples, N further expressions of their refs, S side of the images.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semires.stages.train.config import TrainConfig
from semires.stages.train.labels.group_labels import Compete, GroupConfig, group_labels, mean_over_expressions
from semires.stages.train.matching import MatchConfig, match
from semires.stages.train.reading.samples import Batch


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """How a label is made of the teacher's probabilities.

    expressions, compete, label_floor: as of `GroupConfig`. match: how the label is then matched with candidates; None:
    not at all. is_oracle: it is the true mask that is matched, the label being what is left where no candidate
    qualifies: a bound, nothing that could be trained with.
    """

    name: str
    expressions: int | None = 1
    compete: Compete = "none"
    label_floor: float = 0.0
    match: MatchConfig | None = None
    is_oracle: bool = False

    @property
    def settings(self) -> tuple[int | None, Compete, float, str, bool]:
        """What is computed: refinements that are equal in it make the same labels."""
        return self.expressions, self.compete, self.label_floor, match_name(self.match), self.is_oracle


TEACHER_ALONE = Refinement(name="teacher alone")


def refinements(config: TrainConfig, expressions: int | None) -> tuple[Refinement, ...]:
    """What is studied of a run of `config`; consensus is of up to `expressions` expressions, None for all.

    The first is the teacher's own label. The run's own refinement is among them, or comes before the last.
    """
    iom, cpi, cpi_u, cpi_o = (MatchConfig(strategy=strategy) for strategy in ("iom", "cpi", "cpi-u", "cpi-o"))
    found = (
        TEACHER_ALONE,
        *(Refinement(name=match_name(matched), match=matched) for matched in (iom, cpi, cpi_u, cpi_o)),
        Refinement(name="consensus", expressions=expressions),
        Refinement(name=f"consensus, {match_name(cpi_u)}", expressions=expressions, match=cpi_u),
        Refinement(name="competition", compete="pixels"),
        Refinement(name=f"competition, {match_name(cpi_u)}", compete="pixels", match=cpi_u),
        Refinement(name="consensus + competition", expressions=expressions, compete="pixels"),
        Refinement(
            name=f"consensus + competition, {match_name(cpi_u)}",
            expressions=expressions,
            compete="pixels",
            match=cpi_u,
        ),
        *(
            Refinement(
                name=f"consensus + competition + presence{named}",
                expressions=expressions,
                compete="pixels",
                label_floor=GroupConfig.label_floor,
                match=matched,
            )
            for named, matched in (("", None), (f", {match_name(cpi_u)}", cpi_u))
        ),
    )
    best = Refinement(name="best candidate (oracle)", match=MatchConfig(strategy="iom", iou_rate=0.0), is_oracle=True)
    own = own_refinement(config)
    known = {refinement.settings for refinement in found}
    return (*found, best) if own.settings in known else (*found, own, best)


def own_refinement(config: TrainConfig) -> Refinement:
    """How a run of `config` refines, or one that starts from it would; of an image with more refs than a batch of the
    run holds, all compete."""
    is_grouped = config.is_grouped
    return Refinement(
        name=f"the run's own, {match_name(config.match)}",
        expressions=config.group.expressions if is_grouped else 1,
        compete=config.group.compete if is_grouped else "none",
        label_floor=config.group.label_floor if is_grouped else 0.0,
        match=config.match,
    )


def most_expressions(chosen: Sequence[Refinement]) -> int | None:
    """How many expressions of a ref the teacher reads for all of these, None for all."""
    numbers = [refinement.expressions for refinement in chosen]
    return None if None in numbers else max(number for number in numbers if number is not None)


def match_name(config: MatchConfig | None) -> str:
    """The strategy and the thresholds that it reads, "CPI-U 0.7" for instance."""
    if config is None:
        return "none"
    thresholds = {
        "iom": f"{config.iou_rate:g}",
        "cpi": f"{config.inter1:g}" if config.inter1 == config.inter2 else f"{config.inter1:g}/{config.inter2:g}",
        "cpi-u": f"{config.inter1:g}",
        "cpi-o": f"{config.inter2:g}",
    }
    return f"{config.strategy.upper()} {thresholds[config.strategy]}"


def refined_labels(
    batch: Batch, prob: Tensor, other_prob: Tensor, chosen: Sequence[Refinement]
) -> Iterator[tuple[Tensor, Tensor | None]]:
    """Of each of the refinements in turn the labels of a batch of whole images, bool [B, S, S], and whether they were
    matched, bool [B], None where nothing is matched.

    prob: float [B, S, S], the teacher's probabilities of the expressions that the student reads; other_prob:
    [N, S, S], of the batch's further expressions, of which a refinement takes the first.
    """
    made: dict[tuple[int | None, Compete, float], Tensor] = {}
    for refinement in chosen:
        kind = refinement.expressions, refinement.compete, refinement.label_floor
        if kind not in made:
            made[kind] = _label(batch, prob, other_prob, *kind)
        label = made[kind]
        if refinement.match is None:
            yield label, None
            continue
        asked = batch.masks if refinement.is_oracle else label
        found = match(batch.candidates, batch.offsets, asked, refinement.match)
        if refinement.is_oracle:
            yield torch.where(found.matched[:, None, None], found.refined, label), found.matched
        else:
            yield found.refined, found.matched


def _label(
    batch: Batch, prob: Tensor, other_prob: Tensor, expressions: int | None, compete: Compete, label_floor: float
) -> Tensor:
    """The labels before matching, bool [B, S, S]."""
    other_of = batch.other_of
    number = torch.arange(len(other_of)) - torch.searchsorted(other_of, other_of)  # among those of its ref
    rows = torch.arange(len(other_of)) if expressions is None else torch.nonzero(number < expressions - 1).flatten()
    if len(rows):
        prob = mean_over_expressions(prob, other_prob[rows.to(prob.device)], other_of[rows])
    return group_labels(prob, batch.image_ids, batch.ann_ids, compete=compete, label_floor=label_floor)
