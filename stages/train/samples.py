"""Samples and batches of stage two, and the order in which they come.

Axes: B samples, S side of the training images, T tokens, M candidate masks of a batch, P = ceil(S * S / 8) bytes,
R refs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from semires.cache.views import CandidateView
from semires.stages.data.annotations import Annotation, SharedAnnotations
from semires.stages.data.images import resize_image
from semires.stages.data.masks import resize_mask
from semires.stages.data.refer import Ref, ReferDataset, Text
from semires.stages.train.models.tokenization import Tokenizer

SampleKey = Sequence[int] | NDArray[np.int64]  # (index of the ref, index of its expression)
# Resized images and masks are kept in memory where all of them fit into this many bytes: RefShapes does, RefCOCO not.
MEMORY_LIMIT = 512 << 20
ON_CPU = ("offsets", "ref_ids")  # fields of a batch that stay there


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One expression with its image: `image` uint8 [3, S, S], `mask` bool [S, S], `input_ids` and `attention_mask`
    int64 [T], `candidates` uint8 [M, P] (M = 0 where no candidates are read), and the id of its ref."""

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
    [B], stays there too.
    """

    images: Tensor
    masks: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    candidates: Tensor
    offsets: Tensor
    ref_ids: Tensor

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, all but `offsets` and `ref_ids`; of a pinned one the copies may still be on the way,
        which CUDA's operators wait for."""
        return self._map(lambda name, tensor: tensor if name in ON_CPU else tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which CUDA copies while the program goes on; data loaders call it."""
        return self._map(lambda name, tensor: tensor.pin_memory())

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> "Batch":
        return Batch(**{field.name: change(field.name, getattr(self, field.name)) for field in fields(self)})


class RefSamples(Dataset[Sample]):
    """Refs of a data set as samples, indexed by `(ref, expression)`; ref n is the nth of `refs`.

    view: where the packed candidates of each image are read; None for none. text: which text of an expression the model
    reads. Of the data set it holds what these refs need, in memory that data-loader processes share.
    """

    ref_ids: Tensor
    """int64 [R]."""
    num_expressions: NDArray[np.int64]
    """int64 [R], of each ref."""
    keeps: bool
    """Whether what was read once is kept resized in this process: where all of it fits into `MEMORY_LIMIT` bytes."""

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
        self._annotations = SharedAnnotations(dataset, refs, text)
        self.ref_ids = self._annotations.ref_ids
        self.num_expressions = self._annotations.num_texts
        self._tokenizer = tokenizer
        self._size = size
        self._view = view
        num_images = len({ref.image_id for ref in refs})
        self.keeps = (num_images * 3 + len(refs)) * size * size <= MEMORY_LIMIT
        self._images: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}
        self._candidates: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.ref_ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        index, number = key
        annotation = self._annotations[int(index)]
        input_ids, attention_mask = self._tokenizer([annotation.texts[number]])
        return Sample(
            ref_id=annotation.ref_id,
            image=self._image(annotation),
            mask=self._mask(annotation),
            input_ids=input_ids[0],
            attention_mask=attention_mask[0],
            candidates=self._candidates_of(annotation),
        )

    def _image(self, annotation: Annotation) -> Tensor:
        found = self._images.get(annotation.image_id)
        if found is None:
            resized = resize_image(self._annotations.image(annotation), self._size)
            found = torch.from_numpy(resized).permute(2, 0, 1).contiguous()
            if self.keeps:
                self._images[annotation.image_id] = found
        return found

    def _mask(self, annotation: Annotation) -> Tensor:
        found = self._masks.get(annotation.ref_id)
        if found is None:
            found = torch.from_numpy(resize_mask(self._annotations.mask(annotation), self._size))
            if self.keeps:
                self._masks[annotation.ref_id] = found
        return found

    def _candidates_of(self, annotation: Annotation) -> Tensor:
        if self._view is None:
            return torch.empty(0, (self._size**2 + 7) // 8, dtype=torch.uint8)
        found = self._candidates.get(annotation.image_id)
        if found is None:
            found = torch.from_numpy(self._view[annotation.image_id])
            if self.keeps:
                self._candidates[annotation.image_id] = found
        return found


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; their candidates lie one after another."""
    counts = torch.tensor([len(sample.candidates) for sample in samples])
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        masks=torch.stack([sample.mask for sample in samples]),
        input_ids=torch.stack([sample.input_ids for sample in samples]),
        attention_mask=torch.stack([sample.attention_mask for sample in samples]),
        candidates=torch.cat([sample.candidates for sample in samples]),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        ref_ids=torch.tensor([sample.ref_id for sample in samples], dtype=torch.int64),
    )


def every_expression(num_expressions: NDArray[np.int64]) -> NDArray[np.int64]:
    """The keys of all expressions of all refs, int64 [E, 2], in order: what evaluation measures.

    num_expressions: int64 [R].
    """
    refs = np.repeat(np.arange(len(num_expressions)), num_expressions)
    firsts = np.cumsum(num_expressions) - num_expressions
    return np.stack([refs, np.arange(len(refs)) - firsts[refs]], axis=1)


def training_plan(num_expressions: NDArray[np.int64], batch_size: int, num_steps: int, seed: int) -> NDArray[np.int64]:
    """The keys of a phase's batches, int64 [num_steps, batch_size, 2]: refs in an order drawn anew each pass, one
    expression of each at random.

    num_expressions: int64 [R]. A pass that does not fill its last batch is continued by the next one. Made whole
    beforehand, so that a run that goes on after an interruption sees what it would have seen.
    """
    rng = np.random.default_rng(seed)
    passes = []
    for _ in range(-(-num_steps * batch_size // len(num_expressions))):
        order = rng.permutation(len(num_expressions))
        passes.append(np.stack([order, rng.integers(num_expressions[order])], axis=1))
    return np.concatenate(passes)[: num_steps * batch_size].reshape(num_steps, batch_size, 2)
