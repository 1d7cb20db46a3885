"""Why a refined label took a candidate or not: the candidate's scores beside the thresholds of the run's matching.

Axes: M candidates of an image, P packed bytes, S side.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from semires.stages.train.matching import MatchConfig, Strategy, match

WORDS = {"iou": "IoU", "s1": "s1", "s2": "s2"}


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A candidate beside a pseudo-label. number: its place among its image's, as in the store. iou, s1, s2: in [0, 1],
    eqs. 6 to 8. is_taken: whether the refined label took it; reason: why, in words."""

    number: int
    iou: float
    s1: float
    s2: float
    is_taken: bool
    reason: str


def judgements(candidates: Tensor, label: Tensor, config: MatchConfig) -> list[Judgement]:
    """Of each candidate of an image what matching made of it. candidates: uint8 [M, P]; label: bool [S, S], the
    pseudo-label before matching. On the CPU, where scores are float64 and decide exactly as the matching does."""
    candidates, labels = candidates.cpu(), label.cpu()[None]
    offsets = torch.tensor([0, len(candidates)])
    scored: tuple[Strategy, ...] = ("iom", "cpi-u", "cpi-o")  # by IoU, s1 and s2
    scores = []
    for strategy in scored:
        found = match(candidates, offsets, labels, replace(config, strategy=strategy), return_scores=True).scores
        assert found is not None
        scores.append(found.tolist())
    best = int(match(candidates, offsets, labels, config).chosen[0]) if config.strategy == "iom" else -1
    return [
        _judged(number, iou, s1, s2, best, config) for number, (iou, s1, s2) in enumerate(zip(*scores, strict=True))
    ]


def _judged(number: int, iou: float, s1: float, s2: float, best: int, config: MatchConfig) -> Judgement:
    values = {"iou": iou, "s1": s1, "s2": s2}
    asked = {
        "iom": {"iou": config.iou_rate},
        "cpi-u": {"s1": config.inter1},
        "cpi-o": {"s2": config.inter2},
        "cpi": {"s1": config.inter1, "s2": config.inter2},
    }[config.strategy]
    above = [name for name, threshold in asked.items() if values[name] > threshold]
    is_taken = number == best if config.strategy == "iom" else bool(above)
    parts = [
        f"{WORDS[name]} {values[name]:.3f} {'>' if name in above else '≤'} {threshold:g}"
        for name, threshold in asked.items()
        if name in above or not is_taken
    ]
    reason = f"{'taken' if is_taken else 'not taken'}: {' and '.join(parts)}"
    if config.strategy == "iom" and above:
        reason += ", the highest" if is_taken else ", but another's is higher"
    return Judgement(number=number, iou=iou, s1=s1, s2=s2, is_taken=is_taken, reason=reason)
