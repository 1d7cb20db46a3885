"""A step of mutual learning written plainly, the contestant of `semires bench step`: what the public code does.

Read there, and done here: samples are read in the main process, each anew (image file, .npy mask, candidates as JSON
run lengths by a Python loop, all resized dense), expressions are tokenized once beforehand; blur and jitter sample by
sample; float32; student on labeled and unlabeled samples in one pass, teacher in another; PWA's weights by NumPy on the
host; a Python loop over samples and candidates; AdamW with torch's defaults; the EMA by a loop over the state dict; the
loss read back, `gc.collect()` and `torch.cuda.empty_cache()` in every step.

Left out, or better than there: the unlabeled image's third version that nothing reads, the second normalisation of its
strong view, integer buffers in the EMA, dense candidates as int64.
"""

from __future__ import annotations

import copy
import gc
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import ColorJitter
from torchvision.transforms import functional as tvf

from semires.pipeline.bench.contestants.plain_match import match_by_loop
from semires.pipeline.bench.inputs.step_data import StepData
from semires.stages.data.refer import Ref
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.normalization import IMAGENET_MEAN, IMAGENET_STD
from semires.stages.train.models.tokenization import Tokenizer
from semires.stages.train.step import Phase

CLEAN_UP = "gc, empty cache"
"""The phase that ours does not have."""


@dataclass(frozen=True)
class PlainBatch:
    """images, and of unlabeled samples strong: float32 [B, 3, S, S], normalised. masks: int64 [B, S, S]. input_ids,
    attention_mask: int64 [B, T]. candidates: bool [M, S, S] of each sample."""

    images: Tensor
    strong: Tensor
    masks: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    candidates: list[Tensor]


class PlainSamples(Dataset[Any]):
    """Refs as the public code reads them; unlabeled ones with two views and with candidates."""

    def __init__(
        self, data: StepData, refs: list[Ref], tokenizer: Tokenizer, size: int, config: TrainConfig, *, is_labeled: bool
    ) -> None:
        self._data = data
        self._refs = refs
        self._size = size
        self._views = config.views
        self._is_labeled = is_labeled
        self._is_blurred = config.blur_labeled or not is_labeled
        self._tokens = [[tokenizer([text]) for text in ref.texts(config.text)] for ref in refs]

    def __len__(self) -> int:
        return len(self._refs)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        ref, size, views = self._refs[index], self._size, self._views
        with Image.open(self._data.dataset.image_path(ref.image_id)) as file:
            image = file.convert("RGB")
        mask: NDArray[np.uint8] = np.load(self._data.folder / "masks" / f"{ref.ref_id}.npy")
        image = image.resize((size, size), Image.Resampling.BILINEAR)
        target = Image.fromarray(mask).resize((size, size), Image.Resampling.NEAREST)
        if self._is_blurred and random.random() < views.blur_probability:
            image = image.filter(ImageFilter.GaussianBlur(views.blur_radius))
        weak = tvf.to_tensor(image)
        target_SS = torch.from_numpy(np.array(target)).long()
        number = random.randrange(len(self._tokens[index]))
        input_ids, attention_mask = self._tokens[index][number]
        if self._is_labeled:
            return _normalize(weak), target_SS, input_ids[0], attention_mask[0]
        masks = torch.from_numpy(self._data.run_lengths.read(ref.ref_id).astype(np.uint8))
        candidates = F.interpolate(masks[None], size=(size, size), mode="nearest")[0].bool()
        strong = weak
        if random.random() < views.jitter_probability:
            strong = ColorJitter(views.brightness, views.contrast, views.saturation, views.hue)(weak)
        return _normalize(weak), _normalize(strong), target_SS, input_ids[0], attention_mask[0], candidates

    def batches(self, batch_size: int) -> Iterator[PlainBatch]:
        """Batches without end."""
        loader: DataLoader[Any] = DataLoader(
            self, batch_size=batch_size, shuffle=True, drop_last=True, collate_fn=self._collate
        )
        while True:
            yield from loader

    def _collate(self, samples: list[tuple[Any, ...]]) -> PlainBatch:
        columns = list(zip(*samples, strict=True))
        candidates = [] if self._is_labeled else list(columns.pop())
        images, *strong, masks, input_ids, attention_mask = (torch.stack(column) for column in columns)
        return PlainBatch(images, strong[0] if strong else images, masks, input_ids, attention_mask, candidates)


class PlainStep:
    """Student, teacher and optimizer. phase: as of `TrainStep`; `CLEAN_UP` is one more of its names."""

    def __init__(
        self, config: TrainConfig, student: nn.Module, device: torch.device, num_steps: int, phase: Phase
    ) -> None:
        self._config = config
        self._device = device
        self._phase = phase
        self.student = student.to(device).train()
        self.teacher = copy.deepcopy(self.student).eval().requires_grad_(False)
        trained = [parameter for parameter in self.student.parameters() if parameter.requires_grad]
        self._optimizer = torch.optim.AdamW(trained, lr=config.learning_rate, weight_decay=config.weight_decay)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(
            self._optimizer, lambda step: (1 - min(step, num_steps) / num_steps) ** 0.9
        )
        self._class_weights = torch.tensor(config.class_weights, device=device)

    def __call__(self, labeled: PlainBatch, unlabeled: PlainBatch) -> tuple[float, float]:
        """One optimizer step; the supervised and the unsupervised loss before it."""
        config, device = self._config, self._device
        with self._phase("load"):
            images = torch.cat([labeled.images, unlabeled.strong]).to(device)
            input_ids = torch.cat([labeled.input_ids, unlabeled.input_ids]).to(device)
            attention_mask = torch.cat([labeled.attention_mask, unlabeled.attention_mask]).to(device)
            weak, masks = unlabeled.images.to(device), labeled.masks.to(device)
        num_labeled = len(labeled.images)
        with self._phase("student forward"):
            logits = self.student(images, input_ids, attention_mask)
            loss_sup = self._criterion(logits[:num_labeled], masks)
        with self._phase("teacher"), torch.no_grad():
            probs = self.teacher(weak, input_ids[num_labeled:], attention_mask[num_labeled:]).softmax(dim=1)
        with self._phase("match"):
            weights = self._pwa_weights(probs[:, 1])
            labels = probs.argmax(dim=1).bool()
            refined, unmatched = [], []
            for b, (label, candidates) in enumerate(zip(labels, unlabeled.candidates, strict=True)):
                refined.append(match_by_loop(candidates.to(device), label, config.match))
                if refined[b] is label:
                    unmatched.append(b)
        with self._phase("student forward"):
            loss_unsup = self._unsupervised(logits[num_labeled:], torch.stack(refined).long(), unmatched, weights)
            loss = config.lambda_sup * loss_sup + config.lambda_unsup * loss_unsup
        with self._phase("student backward"):
            self._optimizer.zero_grad()
            loss.backward()
        with self._phase("optimizer"):
            self._optimizer.step()
            self._schedule.step()
        with self._phase("EMA"):
            ema_by_loop(self.teacher, self.student, config.alpha)
        losses = loss_sup.item(), loss_unsup.item()
        with self._phase(CLEAN_UP):
            gc.collect()
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.synchronize()
        return losses

    def _criterion(self, logits: Tensor, target: Tensor) -> Tensor:
        mean = "mean" if self._config.mutual_loss_mean == "weighted" else "none"
        return F.cross_entropy(logits, target, weight=self._class_weights, reduction=mean).mean()

    def _pwa_weights(self, prob: Tensor) -> Tensor:
        array = prob.cpu().numpy()
        weights = 1.3 - np.exp(-((array - 0.5) ** 2) / (2 * 0.1)) / (math.sqrt(2 * math.pi) * math.sqrt(0.1))
        return torch.from_numpy(weights).to(self._device)

    def _unsupervised(self, logits: Tensor, refined: Tensor, unmatched: list[int], weights: Tensor) -> Tensor:
        matched = [b for b in range(len(logits)) if b not in unmatched]
        losses = []
        if matched:
            losses.append(self._criterion(logits[matched], refined[matched]))
        if unmatched:
            pixels = F.cross_entropy(logits[unmatched], refined[unmatched], reduction="none")
            losses.append((pixels * weights[unmatched]).mean())
        return torch.stack(losses).mean()


@torch.no_grad()
def ema_by_loop(teacher: nn.Module, student: nn.Module, alpha: float) -> None:
    """The teacher's moving average, entry by entry of its state dict."""
    theirs = student.state_dict()
    averaged = {
        name: value * alpha + theirs[name] * (1 - alpha) if value.is_floating_point() else theirs[name]
        for name, value in teacher.state_dict().items()
    }
    teacher.load_state_dict(averaged)


def _normalize(image: Tensor) -> Tensor:
    return tvf.normalize(image, list(IMAGENET_MEAN), list(IMAGENET_STD))
