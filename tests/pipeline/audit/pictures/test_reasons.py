import pytest
import torch

from semires.pipeline.audit.pictures.reasons import judgements
from semires.stages.train.matching import MatchConfig, Strategy, match, pack_bits, unpack_bits

SIZE = 8


def rectangles(*boxes: tuple[int, int, int, int]) -> torch.Tensor:
    masks = torch.zeros(len(boxes), SIZE, SIZE, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    return masks


LABEL = rectangles((0, 0, 4, 5))[0]
# All of the label and as much again; most of it; a fifth; nothing of it.
CANDIDATES = rectangles((0, 0, 8, 5), (0, 0, 4, 4), (0, 0, 1, 4), (6, 6, 8, 8))


@pytest.mark.parametrize(
    ("strategy", "taken", "reason"),
    [
        ("iom", [1], "taken: IoU 0.800 > 0.5, the highest"),
        ("cpi-u", [0, 1], "taken: s1 0.800 > 0.7"),
        ("cpi-o", [1, 2], "taken: s2 1.000 > 0.7"),
        ("cpi", [0, 1, 2], "taken: s1 0.800 > 0.7 and s2 1.000 > 0.7"),
    ],
)
def test_judgements__those_taken_are_the_refined_label(strategy: Strategy, taken: list[int], reason: str) -> None:
    config, packed = MatchConfig(strategy=strategy), pack_bits(CANDIDATES)
    found = judgements(packed, LABEL, config)
    assert [each.number for each in found if each.is_taken] == taken
    assert found[1].reason == reason
    assert (found[1].iou, found[1].s1, found[1].s2) == (0.8, 0.8, 1.0)
    refined = match(packed, torch.tensor([0, len(packed)]), LABEL[None], config).refined[0]
    assert torch.equal(unpack_bits(packed[taken], SIZE).any(dim=0), refined)


def test_judgements__why_not() -> None:
    packed = pack_bits(CANDIDATES)
    of = {
        strategy: [each.reason for each in judgements(packed, LABEL, MatchConfig(strategy=strategy, iou_rate=0.4))]
        for strategy in ("iom", "cpi-u", "cpi")
    }
    assert of["iom"][0] == "not taken: IoU 0.500 > 0.4, but another's is higher"
    assert of["iom"][2] == "not taken: IoU 0.200 ≤ 0.4"
    assert of["cpi-u"][3] == "not taken: s1 0.000 ≤ 0.7"
    assert of["cpi"][3] == "not taken: s1 0.000 ≤ 0.7 and s2 0.000 ≤ 0.7"
    assert of["cpi"][0] == "taken: s1 1.000 > 0.7"


def test_judgements__at_the_threshold_and_without_candidates() -> None:
    # 14 of 20 pixels: just 0.7, which is not above it.
    label = rectangles((0, 0, 4, 5))[0]
    candidate = rectangles((0, 0, 4, 4))
    candidate[0, :2, 3] = False
    assert judgements(pack_bits(candidate), label, MatchConfig())[0].reason == "not taken: s1 0.700 ≤ 0.7"
    assert judgements(pack_bits(candidate[:0]), label, MatchConfig()) == []
