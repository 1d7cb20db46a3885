"""Pre-trains LAVT-nano's visual trunk on attributes of RefShapes scenes: the counterpart of ImageNet.

    python -m semires.stages.train.pretrain_nano --output stages/train/weights/nano_swin.safetensors

Every pixel is classified by the category and by the colour of the object it shows, on scenes of a seed range that the
benchmark never touches. No expression is ever read, so what words mean is left to the labeled 1%.
"""

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refshapes.scene import make_scene
from semires.stages.data.refshapes.shapes import CATEGORIES, CATEGORY_IDS, COLORS
from semires.stages.train.lavt import LAVT_NANO
from semires.stages.train.views import normalize
from semires.stages.train.visual import SwinTrunk

# Most pixels are ground; counted less, they leave the loss to the objects.
GROUND_WEIGHT = 0.1
COLOR_NUMBERS = {name: number for number, name in enumerate(COLORS, start=1)}  # 0 is the ground, as in CATEGORY_IDS


class AttributeHead(nn.Module):
    """Per-pixel category and colour from the four stages; thrown away after pre-training."""

    def __init__(self, channels: tuple[int, ...], width: int = 64) -> None:
        super().__init__()
        self.laterals = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.classify = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(width, len(CATEGORIES) + 1 + len(COLORS) + 1, 1),
        )

    def forward(self, features: list[Tensor], size: int) -> tuple[Tensor, Tensor]:
        """Stage features -> category logits [B, 9, size, size] and colour logits [B, 7, size, size]."""
        finest = features[0].shape[-2:]
        maps = [
            F.interpolate(lateral(feature), finest, mode="bilinear", align_corners=False)
            for lateral, feature in zip(self.laterals, features, strict=True)
        ]
        logits = self.classify(torch.stack(maps).sum(dim=0))
        logits = F.interpolate(logits, (size, size), mode="bilinear", align_corners=False)
        category, color = logits.split([len(CATEGORIES) + 1, len(COLORS) + 1], dim=1)
        return category, color


def draw_scenes(num_scenes: int, seed: int, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """Images uint8 [N, 3, S, S] with category and colour numbers of every pixel, uint8 [N, S, S]."""
    images = np.empty((num_scenes, size, size, 3), dtype=np.uint8)
    categories = np.zeros((num_scenes, size, size), dtype=np.uint8)
    colors = np.zeros((num_scenes, size, size), dtype=np.uint8)
    for index in range(num_scenes):
        scene = make_scene("backbone", seed, index)
        images[index] = resize_image(scene.image, size)
        for obj, mask in zip(scene.objects, scene.object_masks, strict=True):
            small = resize_mask(mask, size)
            categories[index][small] = CATEGORY_IDS[obj.category]
            colors[index][small] = COLOR_NUMBERS[obj.color]
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(categories), torch.from_numpy(colors)


def pretrain(num_scenes: int, epochs: int, batch_size: int, learning_rate: float, seed: int, output: Path) -> None:
    """Train from random weights and write the trunk's weights to `output` (safetensors); a line an epoch."""
    torch.manual_seed(seed)
    size = LAVT_NANO.image_size
    started = time.perf_counter()
    images, categories, colors = draw_scenes(num_scenes, seed, size)
    print(f"{num_scenes} scenes drawn  {time.perf_counter() - started:.0f} s", flush=True)
    trunk = SwinTrunk(
        embed_dim=LAVT_NANO.swin_embed_dim,
        depths=LAVT_NANO.swin_depths,
        heads=LAVT_NANO.swin_heads,
        window=LAVT_NANO.swin_window,
        patch=LAVT_NANO.swin_patch,
        drop_path=0.0,
    )
    head = AttributeHead(trunk.channels)
    parameters = [*trunk.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    steps = epochs * (num_scenes // batch_size)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.01)
    )
    category_weights = torch.tensor([GROUND_WEIGHT] + [1.0] * len(CATEGORIES))
    color_weights = torch.tensor([GROUND_WEIGHT] + [1.0] * len(COLORS))
    for epoch in range(epochs):
        right, pixels, total = torch.zeros(2), 0, 0.0
        for chosen in torch.randperm(num_scenes)[: num_scenes // batch_size * batch_size].split(batch_size):
            category, color = categories[chosen].long(), colors[chosen].long()
            found = head(trunk(normalize(images[chosen].float() / 255)), size)
            loss = F.cross_entropy(found[0], category, weight=category_weights)
            loss = loss + F.cross_entropy(found[1], color, weight=color_weights)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            objects = category > 0
            right += torch.stack(
                [(f.argmax(dim=1) == t)[objects].sum() for f, t in zip(found, (category, color), strict=True)]
            )
            pixels += int(objects.sum())
            total += loss.item()
        accuracy = right / pixels * 100
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (num_scenes // batch_size):.4f}  on objects: category "
            f"{accuracy[0]:.1f}%  color {accuracy[1]:.1f}%  {time.perf_counter() - started:.0f} s",
            flush=True,
        )
        trunk.save(output)


def main() -> None:
    """Parse the command line and pre-train."""
    parser = argparse.ArgumentParser(description="Pre-train LAVT-nano's visual trunk on RefShapes attributes.")
    parser.add_argument("--scenes", type=int, default=8000, help="scenes to draw (default 8000)")
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
    )


if __name__ == "__main__":
    main()
