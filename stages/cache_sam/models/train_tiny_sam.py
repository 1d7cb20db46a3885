"""Trains the tiny SAM on RefShapes scenes of a seed range that the benchmark never touches.

    python -m semires.stages.cache_sam.models.train_tiny_sam --steps 2600 --output tiny_sam.safetensors

SAM's recipe (Kirillov et al. 2023, appendix A): point prompts, focal and dice loss 20 : 1, only the best of the three
masks is trained, the IoU head learns each mask's true IoU. Two things the scenes let us do better: a point inside a
part has two right answers, part and whole, and both are asked of the three masks; and a point on the ground has none,
which the IoU head learns as 0.

The shipped weights took 7,300 steps of 4 scenes in five rounds, each from the last one's weights (`--init`): 2,600 at
1e-3, 950 at 6e-4, 1,500 at 5e-4, 1,000 and 1,250 at 4e-4, seeds 0, 1, 2, 3 and 5. Between the rounds RefShapes' objects
grew, came to avoid parts of their own colour and to be covered less; in the first round both right answers could go to
one mask, and before the last the IoU loss counted a third.
"""

import argparse
import math
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from segment_anything.modeling import Sam
from torch import Tensor
from torchvision.ops import sigmoid_focal_loss

from semires.stages.cache_sam.models.tiny_sam import IMAGE_SIZE, build_tiny_sam
from semires.stages.data.files.tensor_files import save_tensors
from semires.stages.data.refshapes.scene import Scene, make_scene

LOGITS_SIZE = IMAGE_SIZE // 2  # the decoder's masks are at half the image's resolution
MASK_WEIGHTS = {"focal": 20.0, "dice": 1.0, "iou": 3.0}
BACKGROUND_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """Point prompts of one image.

    `points_xy` float32 [P, 2] pixels; `targets` float32 [P, 2, h, w], the share of each low-resolution pixel that the
    part and the whole cover (the same mask twice where there is one right answer); `answered` bool [P].
    """

    points_xy: Tensor
    targets: Tensor
    answered: Tensor


def draw_prompts(scene: Scene, rng: np.random.Generator, num_points: int) -> Prompts:
    """Points on random parts, each pixel of a part alike, and some on the ground."""
    height, width = scene.image.shape[:2]
    points, pairs, answered = [], [], []
    ground = ~scene.object_masks.any(axis=0)
    for _ in range(num_points):
        if rng.random() < BACKGROUND_SHARE:
            region, pair = ground, np.zeros((2, height, width), dtype=bool)
        else:
            part = int(rng.integers(len(scene.part_masks)))
            region = scene.part_masks[part]
            pair = np.stack([region, scene.object_masks[scene.part_owner[part]]])
        pixels = np.flatnonzero(region)
        y, x = divmod(int(pixels[rng.integers(len(pixels))]), width)
        points.append((x + 0.5, y + 0.5))
        pairs.append(pair)
        answered.append(region is not ground)
    masks = torch.zeros(num_points, 2, IMAGE_SIZE, IMAGE_SIZE)
    masks[:, :, :height, :width] = torch.from_numpy(np.stack(pairs)).float()
    return Prompts(
        points_xy=torch.tensor(points, dtype=torch.float32),
        targets=F.avg_pool2d(masks, IMAGE_SIZE // LOGITS_SIZE),
        answered=torch.tensor(answered),
    )


def loss_of(logits: Tensor, predicted_iou: Tensor, prompts: Prompts) -> dict[str, Tensor]:
    """Losses of one image: `logits` float [P, 3, h, w], `predicted_iou` float [P, 3]."""
    guess, truth = logits[:, :, None], prompts.targets[:, None]  # [P, 3, 1, h, w] against [P, 1, 2, h, w]
    guess, truth = torch.broadcast_tensors(guess, truth)
    focal = sigmoid_focal_loss(guess, truth, alpha=-1, gamma=2).mean(dim=(-2, -1))
    probability = guess.sigmoid()
    overlap = (probability * truth).sum(dim=(-2, -1))
    dice = 1 - (2 * overlap + 1) / (probability.sum(dim=(-2, -1)) + truth.sum(dim=(-2, -1)) + 1)
    each = MASK_WEIGHTS["focal"] * focal + MASK_WEIGHTS["dice"] * dice  # [P, 3, 2]
    # Part and whole each go to the mask that fits best, but never to the same one: left free, both choose the mask that
    # is ahead, which then learns a compromise, and no mask learns parts. Where they are the same, one mask does.
    is_same = (prompts.targets[:, 0] == prompts.targets[:, 1]).all(dim=(-2, -1))
    pairs = each[:, :, None, 0] + each[:, None, :, 1]  # [P, mask of the part, mask of the whole]
    is_one = torch.eye(pairs.shape[1], dtype=torch.bool) & ~is_same[:, None, None]
    best = pairs.masked_fill(is_one, torch.inf).amin(dim=(1, 2)) / 2
    answered = prompts.answered.float()
    mask_loss = (best * answered).sum() / answered.sum().clamp(min=1)
    with torch.no_grad():
        hard, hard_truth = guess > 0, truth > 0.5
        union = (hard | hard_truth).sum(dim=(-2, -1)).clamp(min=1)
        ious = (hard & hard_truth).sum(dim=(-2, -1)) / union  # [P, 3, 2]
        true_iou = ious.amax(dim=2) * answered[:, None]
        best_ious = ious.amax(dim=1) * answered[:, None]
        part_iou, whole_iou = best_ious.sum(dim=0) / answered.sum().clamp(min=1)
    iou_loss = MASK_WEIGHTS["iou"] * F.mse_loss(predicted_iou, true_iou)
    return {"mask": mask_loss, "iou": iou_loss, "part_iou": part_iou, "whole_iou": whole_iou}


def decode_points(sam: Sam, embedding: Tensor, points_xy: Tensor) -> tuple[Tensor, Tensor]:
    """Masks of single foreground points: `embedding` [1, C, g, g], `points_xy` [P, 2] -> [P, 3, h, w], [P, 3]."""
    labels = torch.ones(len(points_xy), 1, dtype=torch.int)
    sparse, dense = sam.prompt_encoder(points=(points_xy[:, None], labels), boxes=None, masks=None)
    logits, predicted_iou = sam.mask_decoder(
        image_embeddings=embedding,
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=dense,
        multimask_output=True,
    )
    return logits, predicted_iou


def as_input(images: list[NDArray[np.uint8]], sam: Sam) -> Tensor:
    """uint8 [H, W, 3] images of one size -> float32 [B, 3, S, S], normalised and padded as `Sam.preprocess` does."""
    batch = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float()
    padded: Tensor = sam.preprocess(batch)
    return padded


def train(
    steps: int,
    images_per_step: int,
    points_per_image: int,
    learning_rate: float,
    seed: int,
    output: Path,
    init: Path | None = None,
) -> None:
    """Train from random weights, or from `init`, and write `output` (both safetensors); a line every 50 steps."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    sam = build_tiny_sam(init).train()
    optimizer = torch.optim.AdamW(sam.parameters(), lr=learning_rate, weight_decay=0.02)
    warmup = max(1, min(250, steps // 10))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01),
    )
    started, sums = time.perf_counter(), Counter[str]()
    for step in range(steps):
        scenes = [make_scene("sam", seed, step * images_per_step + n) for n in range(images_per_step)]
        embeddings = sam.image_encoder(as_input([scene.image for scene in scenes], sam))
        losses = []
        for scene, embedding in zip(scenes, embeddings, strict=True):
            prompts = draw_prompts(scene, rng, points_per_image)
            logits, predicted_iou = decode_points(sam, embedding[None], prompts.points_xy)
            found = loss_of(logits, predicted_iou, prompts)
            losses.append(found["mask"] + found["iou"])
            sums.update({name: value.item() for name, value in found.items()})
        optimizer.zero_grad()
        torch.stack(losses).mean().backward()
        torch.nn.utils.clip_grad_norm_(sam.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if (step + 1) % 50 == 0:
            figures = "  ".join(f"{name} {value / 50 / images_per_step:.4f}" for name, value in sums.items())
            print(f"step {step + 1}/{steps}  {figures}  {time.perf_counter() - started:.0f} s", flush=True)
            sums.clear()
            save_tensors(sam.state_dict(), output)
    save_tensors(sam.state_dict(), output)


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description="Train the tiny SAM on RefShapes scenes.")
    parser.add_argument("--steps", type=int, default=2600, help="optimizer steps (default 2600)")
    parser.add_argument("--images-per-step", type=int, default=4, help="scenes a step (default 4)")
    parser.add_argument("--points-per-image", type=int, default=12, help="point prompts a scene (default 12)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="AdamW's peak learning rate (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights, scenes and points (default 0)")
    parser.add_argument("--init", type=Path, help="safetensors file to start from (default: random weights)")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    train(
        arguments.steps,
        arguments.images_per_step,
        arguments.points_per_image,
        arguments.learning_rate,
        arguments.seed,
        arguments.output,
        arguments.init,
    )


if __name__ == "__main__":
    main()
