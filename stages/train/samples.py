"""Samples and batches of stage two, and the order in which they come.

Axes: B samples, S side of the training images, T tokens, M candidate masks of a batch, P = ceil(S * S / 8) bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from semires.cache.views import CandidateView
from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refer import Ref, ReferDataset, Text
from semires.stages.train.models.tokenization import Tokenizer

SampleKey = tuple[int, int]  # (index of the ref, index of its expression)
# Resized images and masks are kept in memory where all of them fit into this many bytes: RefShapes does, RefCOCO not.
MEMORY_LIMIT = 512 << 20


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One expression with its image: `image` uint8 [3, S, S], `mask` bool [S, S], `input_ids` and `attention_mask`
    int64 [T], `candidates` uint8 [M, P] (M = 0 where no candidates are read), `ref_id` of the ref."""

    ref_id: int

    image: Tensor
    mask: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    candidates: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples.

    images: uint8 [B, 3, S, S]. masks: bool [B, S, S], the referents' true masks; those of unlabeled samples only ever
    measure the pseudo-labels, no loss sees them. input_ids, attention_mask: int64 [B, T]. candidates: uint8 [M, P],
    those of sample b are rows `offsets[b]:offsets[b + 1]`. offsets: int64 [B + 1], stays on the CPU. ref_ids: int64
    [B], the refs of the samples, stay on the CPU.
    """

    ref_ids: Tensor

    images: Tensor
    masks: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    candidates: Tensor
    offsets: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, all but `offsets` and `ref_ids`."""
        moved = {
            field.name: getattr(self, field.name).to(device, non_blocking=True)
            for field in fields(self)
            if field.name not in ("offsets", "ref_ids")
        }
        return Batch(offsets=self.offsets, ref_ids=self.ref_ids, **moved)


class RefSamples(Dataset[Sample]):
    """Refs of a data set as samples, indexed by `(ref, expression)`.

    view: where the packed candidates of each image are read; None for none. text: which text of an expression the model
    reads.
    """

    def __init__(
        self,
        dataset: ReferDataset,
        refs: Sequence[Ref],
        tokenizer: Tokenizer,
        size: int,
        view: CandidateView | None = None,
        *,
        text: Text = "raw",
    ) -> None:
        self.refs = list(refs)
        self._text: Text = text
        self._dataset = dataset
        self._tokenizer = tokenizer
        self._size = size
        self._view = view
        num_images = len({ref.image_id for ref in refs})
        self._keeps = (num_images * 3 + len(self.refs)) * size * size <= MEMORY_LIMIT
        self._images: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}
        self._candidates: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, key: SampleKey) -> Sample:
        ref = self.refs[key[0]]
        input_ids, attention_mask = self._tokenizer([ref.texts(self._text)[key[1]]])
        return Sample(
            ref_id=ref.ref_id,
            image=self._image(ref),
            mask=self._mask(ref),
            input_ids=input_ids[0],
            attention_mask=attention_mask[0],
            candidates=self._candidates_of(ref),
        )

    def _image(self, ref: Ref) -> Tensor:
        found = self._images.get(ref.image_id)
        if found is None:
            resized = resize_image(self._dataset.image(ref.image_id), self._size)
            found = torch.from_numpy(resized).permute(2, 0, 1).contiguous()
            if self._keeps:
                self._images[ref.image_id] = found
        return found

    def _mask(self, ref: Ref) -> Tensor:
        found = self._masks.get(ref.ref_id)
        if found is None:
            found = torch.from_numpy(resize_mask(self._dataset.mask(ref), self._size))
            if self._keeps:
                self._masks[ref.ref_id] = found
        return found

    def _candidates_of(self, ref: Ref) -> Tensor:
        if self._view is None:
            return torch.empty(0, (self._size**2 + 7) // 8, dtype=torch.uint8)
        found = self._candidates.get(ref.image_id)
        if found is None:
            found = torch.from_numpy(self._view[ref.image_id])
            if self._keeps:
                self._candidates[ref.image_id] = found
        return found


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; their candidates lie one after another."""
    counts = torch.tensor([len(sample.candidates) for sample in samples])
    return Batch(
        ref_ids=torch.tensor([sample.ref_id for sample in samples], dtype=torch.int64),
        images=torch.stack([sample.image for sample in samples]),
        masks=torch.stack([sample.mask for sample in samples]),
        input_ids=torch.stack([sample.input_ids for sample in samples]),
        attention_mask=torch.stack([sample.attention_mask for sample in samples]),
        candidates=torch.cat([sample.candidates for sample in samples]),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
    )


def every_expression(refs: Sequence[Ref]) -> list[SampleKey]:
    """All expressions of all refs, in order: what evaluation measures."""
    return [(index, number) for index, ref in enumerate(refs) for number in range(len(ref.expressions))]


def training_plan(refs: Sequence[Ref], batch_size: int, num_steps: int, seed: int) -> list[list[SampleKey]]:
    """The batches of a phase: refs in an order drawn anew each pass, one expression of each at random.

    A pass that does not fill its last batch is continued by the next one. Made whole beforehand, so that a run that
    goes on after an interruption sees what it would have seen.
    """
    rng = np.random.default_rng(seed)
    keys: list[SampleKey] = []
    while len(keys) < num_steps * batch_size:
        for index in rng.permutation(len(refs)).tolist():
            keys.append((index, int(rng.integers(len(refs[index].expressions)))))
    return [keys[step * batch_size : (step + 1) * batch_size] for step in range(num_steps)]


def load_batches(samples: RefSamples, batches: Sequence[list[SampleKey]], num_workers: int | None) -> Iterator[Batch]:
    """Read batches in the order given, in `num_workers` processes beside this one."""
    loader = DataLoader(
        samples,
        batch_sampler=list(batches),
        collate_fn=collate,
        num_workers=num_workers or 0,
        # A loader draws a seed for its workers. From torch's own generator it would change the dropout of a run that
        # goes on after an interruption, which makes its loaders once more.
        generator=torch.Generator(),
    )
    return iter(loader)
