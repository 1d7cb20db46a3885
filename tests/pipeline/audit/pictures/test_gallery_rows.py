import numpy as np
import torch

from semires.pipeline.audit.pictures.gallery_rows import Group, choose_rows, iou, size_name


def test_choose_rows__none_twice_and_as_many_of_each() -> None:
    ranks: list[tuple[Group, np.ndarray]] = [
        ("largest gain", np.array([4, 2])),
        ("largest loss", np.array([], dtype=np.int64)),
        ("worst label", np.array([2, 4, 0, 1, 3])),
    ]
    assert choose_rows(ranks, 5) == [("largest gain", 4), ("worst label", 2), ("worst label", 0)]
    assert choose_rows(ranks, 0) == []


def test_size_name__thirds() -> None:
    assert [size_name(area, (10.0, 20.0)) for area in (10, 11, 20, 21)] == ["small", "medium", "medium", "large"]


def test_iou__nothing_in_either() -> None:
    nothing, one = torch.zeros(2, 2, dtype=torch.bool), torch.tensor([[True, False], [False, False]])
    assert (iou(nothing, nothing), iou(one, one), iou(one, ~one)) == (0.0, 1.0, 0.0)
