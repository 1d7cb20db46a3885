from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from semires.stages.cache_sam.models.sam import load_sam
from semires.stages.cache_sam.models.tiny_sam import IMAGE_SIZE, build_tiny_sam
from semires.stages.cache_sam.models.train_tiny_sam import (
    LOGITS_SIZE,
    MASK_WEIGHTS,
    Prompts,
    as_input,
    decode_points,
    draw_prompts,
    loss_of,
    train,
)
from semires.stages.data.refshapes.scene import HEIGHT, WIDTH, Scene, make_scene


@pytest.fixture(scope="module")
def scene() -> Scene:
    return make_scene("sam", 0, 0)


@pytest.fixture
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_draw_prompts__shapes(scene: Scene) -> None:
    prompts = draw_prompts(scene, np.random.default_rng(0), 7)
    assert (prompts.points_xy.shape, prompts.points_xy.dtype) == ((7, 2), torch.float32)
    assert (prompts.targets.shape, prompts.targets.dtype) == ((7, 2, LOGITS_SIZE, LOGITS_SIZE), torch.float32)
    assert (prompts.answered.shape, prompts.answered.dtype) == ((7,), torch.bool)


def test_draw_prompts__points_lie_in_their_targets() -> None:
    rng = np.random.default_rng(0)
    owners = set()
    for index in range(4):
        scene = make_scene("sam", 0, index)
        prompts = draw_prompts(scene, rng, 60)
        pixels = prompts.points_xy.long()
        assert (prompts.points_xy == pixels + 0.5).all()
        for (x, y), targets, answered in zip(pixels.tolist(), prompts.targets, prompts.answered, strict=True):
            part = np.flatnonzero(scene.part_masks[:, y, x])
            assert bool(answered) == (len(part) == 1)
            if not answered:
                assert not targets.any()
                continue
            owner = int(scene.part_owner[part[0]])
            owners.add((index, owner))
            for target, mask in zip(targets, (scene.part_masks[part[0]], scene.object_masks[owner]), strict=True):
                assert target[y // 2, x // 2] > 0
                assert target.sum() * 4 == mask.sum()
                assert not target[HEIGHT // 2 :].any()
                assert torch.equal(target[: HEIGHT // 2] == 1, torch.from_numpy(blocks(mask).all(axis=(1, 3))))
        # A share of the points is on the ground.
        assert 0 < (~prompts.answered).sum() < 25
    assert owners == {(index, n) for index in range(4) for n in range(len(make_scene("sam", 0, index).objects))}


def blocks(mask: np.ndarray) -> np.ndarray:
    """A mask as bool [H/2, 2, W/2, 2]."""
    return mask.reshape(HEIGHT // 2, 2, WIDTH // 2, 2)


def test_draw_prompts__same_generator_same_points(scene: Scene) -> None:
    one, other = (draw_prompts(scene, np.random.default_rng(5), 9) for _ in range(2))
    assert torch.equal(one.points_xy, other.points_xy)
    assert torch.equal(one.targets, other.targets)


def hand_made(answered: list[bool]) -> Prompts:
    """For each point a part (2 x 2 of 8 x 8 pixels) and a whole (4 x 4); nothing where it is not answered."""
    targets = torch.zeros(len(answered), 2, 8, 8)
    targets[:, 0, 2:4, 2:4] = 1
    targets[:, 1, 2:6, 2:6] = 1
    targets[~torch.tensor(answered)] = 0
    return Prompts(points_xy=torch.zeros(len(answered), 2), targets=targets, answered=torch.tensor(answered))


def logits_of(*masks: torch.Tensor) -> torch.Tensor:
    """Certain logits of three masks, for one point: float32 [1, 3, h, w]."""
    return torch.stack([40 * mask - 20 for mask in masks])[None]


def test_loss_of__perfect_masks_in_any_order() -> None:
    prompts = hand_made([True])
    part, whole = prompts.targets[0]
    rubbish = torch.ones(8, 8)
    for masks, ious in (
        ((part, whole, rubbish), (1.0, 1.0, 0.25)),
        ((rubbish, part, whole), (0.25, 1.0, 1.0)),
        ((whole, rubbish, part), (1.0, 0.25, 1.0)),
    ):
        found = loss_of(logits_of(*masks), torch.tensor([ious]), prompts)
        assert found["mask"].item() == pytest.approx(0, abs=1e-4)
        assert found["part_iou"].item() == found["whole_iou"].item() == 1
        assert found["iou"].item() == pytest.approx(0, abs=1e-6)


def test_loss_of__part_alone_is_half_the_answer() -> None:
    """By hand: the part is met; of the whole's 16 pixels 4 are, so that its dice loss is 1 - 9 / 21."""
    prompts = hand_made([True])
    part = prompts.targets[0, 0]
    found = loss_of(logits_of(part, part, part), torch.ones(1, 3), prompts)
    # Twelve wrong pixels of 64, each log(1 + e^20) = 20 and (1 - p)^2 = 1.
    focal = 20.0 * (12 / 64 * 20)
    assert found["mask"].item() == pytest.approx((focal + 1 - 9 / 21) / 2, rel=1e-4)
    assert (found["part_iou"].item(), found["whole_iou"].item()) == (1, 0.25)


def test_loss_of__one_mask_cannot_answer_for_part_and_whole() -> None:
    """Two masks between part and whole are worse than one of each, though each of the two fits both halfway."""
    prompts = hand_made([True])
    part, whole = prompts.targets[0]
    ground = torch.zeros(8, 8)
    both = loss_of(logits_of(part, whole, ground), torch.zeros(1, 3), prompts)["mask"]
    one = loss_of(logits_of(whole, ground, ground), torch.zeros(1, 3), prompts)["mask"]
    assert one > both + 0.3
    # A simple object has one right answer, which one mask gives.
    same = replace(prompts, targets=whole.expand(1, 2, 8, 8))
    assert loss_of(logits_of(whole, ground, ground), torch.zeros(1, 3), same)["mask"].item() == pytest.approx(
        0, abs=1e-4
    )


def test_loss_of__ground_asks_for_no_mask_and_a_low_score() -> None:
    prompts = hand_made([False])
    logits = torch.zeros(1, 3, 8, 8, requires_grad=True)
    found = loss_of(logits, torch.full((1, 3), 0.5), prompts)
    assert found["mask"].item() == 0
    assert found["part_iou"].item() == found["whole_iou"].item() == 0
    assert found["iou"].item() == pytest.approx(MASK_WEIGHTS["iou"] * 0.25)
    found["mask"].backward()
    assert not logits.grad.any()


def test_loss_of__mean_over_answered_points_only() -> None:
    one, two = hand_made([True]), hand_made([True, False])
    logits = torch.randn(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    alone = loss_of(logits, torch.zeros(1, 3), one)
    both = loss_of(logits.expand(2, 3, 8, 8), torch.zeros(2, 3), two)
    assert both["mask"].item() == pytest.approx(alone["mask"].item())
    assert both["iou"].item() == pytest.approx(alone["iou"].item() / 2)


def test_loss_of__only_the_best_mask_learns() -> None:
    prompts = hand_made([True])
    part, whole = prompts.targets[0]
    logits = (logits_of(part, whole, 1 - whole) / 10).requires_grad_()
    loss_of(logits, torch.zeros(1, 3), prompts)["mask"].backward()
    assert logits.grad[0, 0].any()
    assert logits.grad[0, 1].any()
    assert not logits.grad[0, 2].any()


def test_as_input__same_as_sams_predictor(random_sam: Sam, scene: Scene) -> None:
    """What is trained on is what the generator feeds at the end."""
    batch = as_input([scene.image, scene.image], random_sam)
    assert batch.shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)
    predictor = SamPredictor(random_sam)
    predictor.set_image(scene.image)
    with torch.no_grad():
        embedding = random_sam.image_encoder(batch)[:1]
        assert torch.allclose(embedding, predictor.get_image_embedding(), atol=1e-5)
        points = torch.tensor([[30.5, 40.5], [100.5, 20.5]])
        logits, predicted_iou = decode_points(random_sam, embedding, points)
        _, expected_iou, expected = predictor.predict_torch(points[:, None], torch.ones(2, 1), multimask_output=True)
    assert logits.shape == (2, 3, LOGITS_SIZE, LOGITS_SIZE)
    assert torch.allclose(logits, expected, atol=1e-5)
    assert torch.allclose(predicted_iou, expected_iou, atol=1e-5)


@pytest.mark.usefixtures("_seeded")
def test_loss_of__falls_when_one_scene_is_learned(scene: Scene) -> None:
    sam = build_tiny_sam().train()
    optimizer = torch.optim.AdamW(sam.parameters(), lr=1e-3)
    prompts = draw_prompts(scene, np.random.default_rng(0), 8)
    losses = []
    for _ in range(12):
        embedding = sam.image_encoder(as_input([scene.image], sam))
        found = loss_of(*decode_points(sam, embedding, prompts.points_xy), prompts)
        optimizer.zero_grad()
        (found["mask"] + found["iou"]).backward()
        optimizer.step()
        losses.append((found["mask"] + found["iou"]).item())
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.usefixtures("_seeded")
def test_train__writes_weights_that_load(tmp_path: Path) -> None:
    """A few steps, fewer than its warm-up counts."""
    written = []
    for name in ("one", "two"):
        path = tmp_path / f"{name}.safetensors"
        train(2, 1, 3, 1e-3, 0, path)
        written.append(load_sam("tiny", path, torch.device("cpu")).sam.state_dict())
    assert all(torch.equal(value, written[1][key]) for key, value in written[0].items())
    torch.manual_seed(0)
    untrained = build_tiny_sam().state_dict()
    assert any(not torch.equal(value, untrained[key]) for key, value in written[0].items())
