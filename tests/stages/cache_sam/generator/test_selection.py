import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.amg import batched_mask_to_box, calculate_stability_score
from segment_anything.utils.transforms import ResizeLongestSide

from semires.cache.bits import pack_rows, unpack_rows
from semires.cache.candidates import Candidates
from semires.stages.cache_sam.generator.prompts import Crop
from semires.stages.cache_sam.generator.selection import (
    Frame,
    _count,
    boxes_of,
    joined,
    masks_at_once,
    pack,
    select,
    suppress,
    upsample,
)
from semires.stages.cache_sam.generator.settings import GeneratorSettings


def frame_of(crop: Crop, image_size: tuple[int, int], padded_size: int = 128, low_side: int = 64) -> Frame:
    input_size = ResizeLongestSide.get_preprocess_shape(*crop.size, padded_size)
    return Frame(crop=crop, image_size=image_size, input_size=input_size, padded_size=padded_size, low_side=low_side)


def whole(height: int, width: int, padded_size: int = 128, low_side: int = 64) -> Frame:
    return frame_of(Crop(x0=0, y0=0, x1=width, y1=height, layer=0), (height, width), padded_size, low_side)


SIZES = [(96, 128), (128, 128), (61, 150), (150, 61), (1, 1), (3, 200), (300, 257), (40, 31), (127, 128), (8, 8)]


@pytest.mark.parametrize("size", SIZES)
def test_upsample__bit_equal_to_sams(random_sam: Sam, size: tuple[int, int]) -> None:
    logits = torch.randn(5, 64, 64, generator=torch.Generator().manual_seed(0))
    frame = whole(*size)
    expected = random_sam.postprocess_masks(logits[:, None], frame.input_size, size)[:, 0]
    assert torch.equal(upsample(logits, frame), expected)
    assert torch.equal(upsample(logits[2:3], frame), expected[2:3])
    rows, columns = frame.low_size
    assert torch.equal(upsample(logits[:, :rows, :columns], frame), expected)


@pytest.mark.parametrize("low", [48, 37])
def test_upsample__input_no_multiple_of_the_logits(random_sam: Sam, low: int) -> None:
    logits = torch.randn(2, low, low, generator=torch.Generator().manual_seed(0))
    frame = whole(90, 70, low_side=low)
    expected = random_sam.postprocess_masks(logits[:, None], frame.input_size, (90, 70))[:, 0]
    assert torch.equal(upsample(logits, frame), expected)


def random_masks(count: int, height: int, width: int) -> torch.Tensor:
    """Sparse and full masks, the first one empty."""
    density = torch.linspace(0, 1, count)[:, None, None] ** 4
    return torch.rand(count, height, width, generator=torch.Generator().manual_seed(0)) < density


@pytest.mark.parametrize("size", SIZES)
def test_boxes_of__same_as_sams(size: tuple[int, int]) -> None:
    masks = random_masks(9, *size)
    assert torch.equal(boxes_of(masks), batched_mask_to_box(masks))
    assert boxes_of(masks[:0]).shape == (0, 4)


@pytest.mark.parametrize("size", SIZES)
def test_pack__same_as_the_stores(size: tuple[int, int]) -> None:
    masks = random_masks(9, *size)
    packed = pack(masks, whole(*size))
    assert packed.is_contiguous()
    assert np.array_equal(packed.numpy(), pack_rows(masks.numpy()))
    assert pack(masks[:0], whole(*size)).shape == (0, *packed.shape[1:])


def test_pack__crop_in_its_image() -> None:
    masks = random_masks(4, 11, 9)
    packed = pack(masks, frame_of(Crop(x0=5, y0=2, x1=14, y1=13, layer=1), (20, 16)))
    expected = np.zeros((4, 20, 16), dtype=bool)
    expected[:, 2:13, 5:14] = masks
    assert np.array_equal(unpack_rows(packed.numpy(), width=16), expected)


def test_select__stability_is_sams() -> None:
    logits = torch.randn(6, 30, 40, generator=torch.Generator().manual_seed(0)) + torch.arange(6)[:, None, None]
    settings = GeneratorSettings(stability_score_thresh=0.4, stability_score_offset=0.7)
    selected = select(logits, whole(30, 40), settings, 0.5)
    expected = calculate_stability_score(logits, 0.5, 0.7)
    assert selected.kept.tolist() == (expected >= 0.4).nonzero()[:, 0].tolist()
    assert 0 < len(selected.kept) < 6
    assert torch.equal(selected.stability, expected[selected.kept])
    assert torch.equal(selected.masks, (logits > 0.5)[selected.kept])
    assert torch.equal(selected.area, selected.masks.sum((1, 2)))


def test_select__empty_mask_passes_no_threshold_but_zero() -> None:
    logits = torch.full((1, 4, 4), -9.0)
    assert len(select(logits, whole(4, 4), GeneratorSettings(stability_score_thresh=0.01), 0.0).kept) == 0
    selected = select(logits, whole(4, 4), GeneratorSettings(stability_score_thresh=0.0), 0.0)
    assert selected.stability.isnan().tolist() == [True]
    assert (selected.area.tolist(), selected.boxes_xyxy.tolist()) == ([0], [[0, 0, 0, 0]])


def test_select__drops_what_touches_a_crops_inner_edge() -> None:
    logits = torch.full((2, 60, 60), -9.0)
    logits[0, :10, :10] = 9  # at the image's corner
    logits[1, 30:60, 10:20] = 9  # at the crop's lower edge, where the image goes on
    frame = frame_of(Crop(x0=0, y0=0, x1=60, y1=60, layer=1), (200, 200))
    assert select(logits, frame, GeneratorSettings(), 0.0).kept.tolist() == [0]


def test_suppress__by_score() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 11], [20, 20, 30, 30]])
    assert suppress(boxes, torch.tensor([0.5, 0.9, 0.7]), 0.7).tolist() == [1, 2]
    assert suppress(boxes[:0], torch.empty(0), 0.7).tolist() == []


def test_masks_at_once__one_of_a_huge_image() -> None:
    assert masks_at_once(whole(60_000, 60_000), torch.device("cpu")) == 1
    assert masks_at_once(whole(96, 128), torch.device("cpu")) > 10


def boxed(boxes_xyxy: list[tuple[int, int, int, int]], score: float) -> Candidates:
    """Candidates of an image of 20 x 30 pixels that fill these boxes."""
    masks = np.zeros((len(boxes_xyxy), 20, 30), np.bool_)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes_xyxy, strict=True):
        mask[y0:y1, x0:x1] = True
    count = len(masks)
    return Candidates.from_masks(7, masks, [score] * count, [score] * count, [(score, score)] * count)


def test_joined__what_is_new_behind_what_is_there() -> None:
    first = boxed([(0, 0, 10, 10), (20, 0, 30, 20)], 0.1)
    more = boxed([(0, 0, 10, 9), (0, 0, 10, 8), (5, 5, 12, 12), (0, 0, 0, 0)], 0.9)  # IoU 0.9, 0.8, less, empty
    found = joined(first, more, 0.85)
    np.testing.assert_array_equal(found.boxes_xyxy, [*first.boxes_xyxy, *more.boxes_xyxy[1:]])
    np.testing.assert_array_equal(found.bits, [*first.bits, *more.bits[1:]])
    np.testing.assert_allclose(found.predicted_iou, [0.1, 0.1, 0.9, 0.9, 0.9])
    np.testing.assert_allclose(found.points_xy[:, 0], found.stability_score)
    assert joined(first, more, 1.0).num_masks == 6


def test_joined__with_none() -> None:
    none, some = boxed([], 0.5), boxed([(0, 0, 4, 4)], 0.5)
    assert [joined(*pair, 0.7).num_masks for pair in [(none, some), (some, none), (none, none)]] == [1, 1, 0]


@pytest.mark.parametrize("size", [(96, 128), (600, 8), (255, 16), (7, 13), (300, 9), (0, 8)])
def test_count__set_pixels_of_masks_of_any_size(size: tuple[int, int]) -> None:
    """Bytes are added eight at a time, and may overflow where many rows are set."""
    masks = torch.rand(3, *size, generator=torch.Generator().manual_seed(0)) > 0.5
    masks[0] = True
    masks[2] = False
    assert torch.equal(_count(masks), masks.sum((1, 2), dtype=torch.int32))
    assert _count(masks[:, :, : size[1] // 2]).tolist() == masks[:, :, : size[1] // 2].sum((1, 2)).tolist()
    assert _count(masks[:0]).shape == (0,)
