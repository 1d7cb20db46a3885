"""Pre-trains the nano models' visual trunks on attributes of RefShapes' objects: the counterpart of ImageNet.

    python -m semires.stages.train.models.pretrain_nano --output stages/train/models/weights/nano_swin.safetensors
    python -m semires.stages.train.models.pretrain_nano --model clipseg-nano \\
        --output stages/train/models/weights/clipseg_nano_vision.safetensors

Points well inside an object tell its category, colour, size and place, points far from all objects that they are
ground, on scenes of a seed range that the benchmark never touches. As with ImageNet, no outline is ever told: masks
are learned from the labeled refs alone. No expression is read either, so what words mean is left to them too.

The shipped weights are what one run of each with the defaults and one thread (`OMP_NUM_THREADS=1`) writes.
"""

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from semires.stages.data.files.tensor_files import save_tensors
from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refshapes.scene import HEIGHT, NUM_OBJECTS, WIDTH, make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS, COLORS, SIZES
from semires.stages.train.models.build import NANO_NAMES, image_size_of, weights_folder
from semires.stages.train.models.clipseg_nano import PATCH, clipseg_nano
from semires.stages.train.models.lavt.config import LAVT_NANO
from semires.stages.train.models.lavt.visual import SwinTrunk
from semires.stages.train.models.normalization import normalize

# What a point shows, beside the number of an object.
GROUND, NOTHING = 254, 255
# A point is inside an object from this share of the object's greatest depth, on the ground from so many pixels on.
INNER_SHARE = 0.6
GROUND_DEPTH = 6
# Most points are ground; counted less, they leave the loss to the objects.
GROUND_WEIGHT = 0.1
PLACE_WEIGHT = 2.0
# Side in pixels of the squares that attributes are asked for: LAVT-nano's patch, a half of CLIPSeg-nano's.
SQUARE = 4
COLOR_NUMBERS = {name: number for number, name in enumerate(COLORS)}
SIZE_NUMBERS = {name: number for number, name in enumerate(SIZES)}
# Channels of the head: categories and ground, colours, sizes, the object's centre (x, y) in [-1, 1].
CHANNELS = [len(CATEGORIES) + 1, len(COLORS), len(SIZES), 2]


class AttributeHead(nn.Module):
    """Attributes at every position of the finest stage, or at `scale` x `scale` points of it; thrown away after
    pre-training."""

    def __init__(self, channels: Sequence[int], scale: int = 1, width: int = 64) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        classify = nn.Conv2d(width, sum(CHANNELS) * scale**2, 1)
        self.classify = nn.Sequential(nn.GELU(), classify, nn.PixelShuffle(scale))

    def forward(self, features: list[Tensor]) -> Tensor:
        """Stage features, finest [B, C, H, W] first -> scores [B, sum(CHANNELS), H * scale, W * scale]."""
        finest = features[0].shape[-2:]
        maps = [
            F.interpolate(lateral(feature), finest, mode="bilinear", align_corners=False)
            for lateral, feature in zip(self.laterals, features, strict=True)
        ]
        scores: Tensor = self.classify(torch.stack(maps).sum(dim=0))
        return scores


def draw_scenes(num_scenes: int, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 [N, 3, S, S]; what each point shows, uint8 [N, S, S]: an object's number, GROUND or NOTHING; the
    objects' category, colour, size (numbers) and centre (x, y in [-1, 1]), float32 [N, objects, 5]."""
    images = np.empty((num_scenes, size, size, 3), dtype=np.uint8)
    points = np.full((num_scenes, size, size), NOTHING, dtype=np.uint8)
    attributes = np.zeros((num_scenes, NUM_OBJECTS[1], 5), dtype=np.float32)
    for index in range(num_scenes):
        scene = make_scene("backbone", seed, index)
        images[index] = resize_image(scene.image, size)
        ground = np.ones((size, size), dtype=bool)
        for number, (obj, mask) in enumerate(zip(scene.objects, scene.object_masks, strict=True)):
            small = resize_mask(mask, size)
            ground &= ~small
            inside = _depth(small)
            points[index][inside >= INNER_SHARE * inside.max()] = number
            attributes[index, number] = [
                CATEGORY_IDS[obj.category] - 1,
                COLOR_NUMBERS[obj.color],
                SIZE_NUMBERS[obj.size],
                obj.center_xy[0] / WIDTH * 2 - 1,
                obj.center_xy[1] / HEIGHT * 2 - 1,
            ]
        points[index][_depth(ground) >= GROUND_DEPTH] = GROUND
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(points), torch.from_numpy(attributes)


def _depth(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """How many steps to the next pixel outside the mask, where the image ends too; int64 [H, W], 0 outside."""
    depth, left = np.zeros(mask.shape, dtype=np.int64), mask
    while left.any():
        depth += left
        around = np.pad(left, 1)
        left = left & around[:-2, 1:-1] & around[2:, 1:-1] & around[1:-1, :-2] & around[1:-1, 2:]
    return depth


def attribute_loss(scores: Tensor, points: Tensor, attributes: Tensor) -> tuple[Tensor, Tensor]:
    """The loss of a batch, a scalar, and of its points inside objects the share with the right category, colour and
    size and the mean error of the centre, [4].

    scores: [B, sum(CHANNELS), H, W]. points: uint8 [B, H, W]. attributes: [B, objects, 5].
    """
    image, y, x = torch.nonzero(points < GROUND, as_tuple=True)
    truth = attributes[image, points[image, y, x].long()]
    found = scores[image, :, y, x]
    image, y, x = torch.nonzero(points == GROUND, as_tuple=True)
    on_ground = scores[image, : CHANNELS[0], y, x]
    category, color, size, place = found.split(CHANNELS, dim=1)
    numbers = truth[:, :3].long()
    ground = len(CATEGORIES)
    weights = torch.ones(ground + 1)
    weights[ground] = GROUND_WEIGHT
    loss = F.cross_entropy(
        torch.cat([category, on_ground]),
        torch.cat([numbers[:, 0], torch.full((len(on_ground),), ground)]),
        weight=weights,
    )
    loss = loss + F.cross_entropy(color, numbers[:, 1]) + F.cross_entropy(size, numbers[:, 2])
    loss = loss + PLACE_WEIGHT * F.smooth_l1_loss(place, truth[:, 3:], beta=0.1)
    with torch.no_grad():
        best = torch.stack([category[:, :ground].argmax(1), color.argmax(1), size.argmax(1)], dim=1)
        right = (best == numbers).float().mean(dim=0)
        return loss, torch.cat([right, (place - truth[:, 3:]).abs().mean()[None]])


class ClipSegTrunk(nn.Module):
    """CLIPSeg-nano's vision encoder, whose layers that the decoder reads are its stages."""

    def __init__(self) -> None:
        super().__init__()
        self.model = clipseg_nano(weights_folder() / "nano_vocab.txt")
        self.channels = tuple(layer.in_features for layer in self.model.network.decoder.reduces)

    def forward(self, images: Tensor) -> list[Tensor]:
        """images float32 [B, 3, H, W] -> a map [B, C, H / patch, W / patch] of each layer."""
        size = [side // PATCH for side in images.shape[-2:]]
        return [feature[:, 1:].transpose(1, 2).unflatten(2, size) for feature in self.model.features(images)]


def _trunk(model: str) -> tuple[SwinTrunk | ClipSegTrunk, nn.Module, int]:
    """The trunk of a nano model with random weights, the module whose weights are to be written, and its patch."""
    if model == "clipseg-nano":
        trunk = ClipSegTrunk()
        return trunk, trunk.model.vision, PATCH
    swin = SwinTrunk(
        embed_dim=LAVT_NANO.swin_embed_dim,
        depths=LAVT_NANO.swin_depths,
        heads=LAVT_NANO.swin_heads,
        window=LAVT_NANO.swin_window,
        patch=LAVT_NANO.swin_patch,
        drop_path=0.0,
    )
    return swin, swin, LAVT_NANO.swin_patch


def pretrain(
    num_scenes: int,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    output: Path,
    model: str = "nano",
) -> None:
    """Train from random weights and write the trunk's weights to `output` (safetensors); a line an epoch."""
    torch.manual_seed(seed)
    started = time.perf_counter()
    images, points, attributes = draw_scenes(num_scenes, seed, image_size_of(model))
    # What counts is the point in the middle of each square of this side.
    points = points[:, SQUARE // 2 :: SQUARE, SQUARE // 2 :: SQUARE]
    print(f"{num_scenes} scenes drawn  {time.perf_counter() - started:.0f} s", flush=True)
    trunk, pretrained, patch = _trunk(model)
    head = AttributeHead(trunk.channels, patch // SQUARE)
    parameters = [*trunk.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    steps_per_epoch = num_scenes // batch_size
    steps = epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
    )
    for epoch in range(epochs):
        total, right = 0.0, torch.zeros(4)
        for chosen in torch.randperm(num_scenes)[: steps_per_epoch * batch_size].split(batch_size):
            scores = head(trunk(normalize(images[chosen].float() / 255)))
            loss, batch_right = attribute_loss(scores, points[chosen], attributes[chosen])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            total += loss.item()
            right += batch_right
        category, color, size, place = (right / steps_per_epoch).tolist()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / steps_per_epoch:.4f}  right: category {category:.1%}  color "
            f"{color:.1%}  size {size:.1%}  center off by {place:.3f}  {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        save_tensors(pretrained.state_dict(), output)


def main() -> None:
    """Parse the command line and pre-train."""
    parser = argparse.ArgumentParser(description="Pre-train a nano model's visual trunk on RefShapes attributes.")
    parser.add_argument("--model", choices=NANO_NAMES, default="nano", help="whose trunk (default nano)")
    parser.add_argument("--scenes", type=int, default=6000, help="scenes to draw (default 6000)")
    parser.add_argument("--epochs", type=int, default=10, help="passes over them (default 10)")
    parser.add_argument("--batch-size", type=int, default=16, help="scenes a step (default 16)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="AdamW's peak learning rate (default 1e-3)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and scenes (default 0)")
    parser.add_argument("--output", type=Path, required=True, help="safetensors file to write")
    arguments = parser.parse_args()
    pretrain(
        arguments.scenes,
        arguments.epochs,
        arguments.batch_size,
        arguments.learning_rate,
        arguments.seed,
        arguments.output,
        arguments.model,
    )


if __name__ == "__main__":
    main()
