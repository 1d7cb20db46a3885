"""Samples and batches of stage two.

Axes: B samples, S side of the training images, T tokens, N further expressions, M candidate masks, P = ceil(S * S / 8)
bytes, R refs.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

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
from semires.stages.train.reading.sampling import Keys, SampleKey

# Resized images and masks are kept in memory where all of them fit into this many bytes: RefShapes does, RefCOCO not.
MEMORY_LIMIT = 512 << 20
ON_CPU = ("offsets", "ref_ids", "image_ids", "ann_ids", "other_of")  # fields of a batch that stay there


@dataclass(frozen=True, kw_only=True)
class Sample:
    """One expression with its image: `image` uint8 [3, S, S], `mask` bool [S, S], which means nothing unless
    `has_mask`, `input_ids` and `attention_mask` int64 [T], `candidates` uint8 [M, P] (M = 0 where no candidates are
    read), the ids of its ref, image and annotation, and further expressions of the ref, `other_input_ids` and
    `other_attention_mask` int64 [N, T]."""

    ref_id: int
    image_id: int
    ann_id: int
    image: Tensor
    mask: Tensor
    has_mask: bool
    input_ids: Tensor
    attention_mask: Tensor
    other_input_ids: Tensor
    other_attention_mask: Tensor
    candidates: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """B samples.

    images: uint8 [B, 3, S, S]. masks: bool [B, S, S], the referents' true masks; those of unlabeled samples only ever
    measure the pseudo-labels, no loss sees them. has_mask: bool [B], whether the true mask is known; nothing is
    measured against one that is not, which is empty. input_ids, attention_mask: int64 [B, T]. candidates: uint8 [M, P],
    those of sample b are rows `offsets[b]:offsets[b + 1]`; offsets: int64 [B + 1]. other_input_ids,
    other_attention_mask: int64 [N, T], further expressions of the samples' refs; other_of: int64 [N], rising, the
    sample that each is of. ref_ids, image_ids, ann_ids: int64 [B]. The fields of `ON_CPU` stay there. bounds: where in
    the whole batch, of which this is a rank's share, the ranks' shares begin, then how long it is; None where this is
    the whole.
    """

    images: Tensor
    masks: Tensor
    has_mask: Tensor
    input_ids: Tensor
    attention_mask: Tensor
    other_input_ids: Tensor
    other_attention_mask: Tensor
    other_of: Tensor
    candidates: Tensor
    offsets: Tensor
    ref_ids: Tensor
    image_ids: Tensor
    ann_ids: Tensor
    bounds: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.images)

    def to(self, device: torch.device) -> "Batch":
        """The batch on `device`, all but what stays on the CPU; of a pinned one the copies may still be on the way,
        which CUDA's operators wait for."""
        return self._map(lambda name, tensor: tensor if name in ON_CPU else tensor.to(device, non_blocking=True))

    def pin_memory(self) -> "Batch":
        """The batch in page-locked memory, from which CUDA copies while the program goes on; data loaders call it."""
        return self._map(lambda name, tensor: tensor.pin_memory())

    def _map(self, change: Callable[[str, Tensor], Tensor]) -> "Batch":
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return Batch(**values | {name: change(name, tensor) for name, tensor in tensors.items()})


class RefSamples(Dataset[Sample]):
    """Refs of a data set as samples, indexed by their keys (sampling.py); ref n is the nth of `refs`.

    view: where the packed candidates of each image are read; None for none. text: which text of an expression the model
    reads. Of the data set it holds what these refs need, in memory that data-loader processes share.
    """

    ref_ids: Tensor
    """int64 [R]."""
    image_ids: Tensor
    """int64 [R], of each ref."""
    num_expressions: NDArray[np.int64]
    """int64 [R], of each ref."""
    keeps: bool
    """Whether what was read once is kept resized in this process: where all of it fits into `MEMORY_LIMIT` bytes. Where
    not, the last image and mask are all that is kept, so that samples of one image in a row read it once."""

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
        self.image_ids = self._annotations.image_ids
        self.num_expressions = self._annotations.num_texts
        self._tokenizer = tokenizer
        self._size = size
        self._view = view
        num_images = len({ref.image_id for ref in refs})
        self.keeps = (num_images * 3 + len(refs)) * size * size <= MEMORY_LIMIT
        self._images: dict[int, Tensor] = {}
        self._masks: dict[int, Tensor] = {}
        self._no_mask = torch.zeros(size, size, dtype=torch.bool)  # of all refs whose mask is not known
        self._candidates: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return len(self.ref_ids)

    def __getitem__(self, key: SampleKey) -> Sample:
        index, *numbers = (int(number) for number in key)
        annotation = self._annotations[index]
        input_ids, attention_mask = self._tokenizer([annotation.texts[number] for number in numbers if number >= 0])
        return Sample(
            ref_id=annotation.ref_id,
            image_id=annotation.image_id,
            ann_id=annotation.ann_id,
            image=self._image(annotation),
            mask=self._mask(annotation),
            has_mask=annotation.segmentation is not None,
            input_ids=input_ids[0],
            attention_mask=attention_mask[0],
            other_input_ids=input_ids[1:],
            other_attention_mask=attention_mask[1:],
            candidates=self._candidates_of(annotation),
        )

    def batch(self, keys: Keys) -> Batch:
        """The samples of `keys` as one batch, which may be an empty one."""
        if len(keys):
            return collate([self[key] for key in keys])
        one = collate([self[0, 0]])
        nothing = one._map(lambda name, tensor: tensor[:0])
        return replace(nothing, offsets=one.offsets[:1])

    def full_mask(self, index: int) -> NDArray[np.bool_]:
        """The true mask of ref `index` at its image's own size, bool [H, W]; the ref has one."""
        mask = self._annotations.mask(self._annotations[index])
        assert mask is not None
        return mask

    def _image(self, annotation: Annotation) -> Tensor:
        def read() -> Tensor:
            resized = resize_image(self._annotations.image(annotation), self._size)
            return torch.from_numpy(resized).permute(2, 0, 1).contiguous()

        return self._kept(self._images, annotation.image_id, read)

    def _mask(self, annotation: Annotation) -> Tensor:
        if annotation.segmentation is None:
            return self._no_mask

        def read() -> Tensor:
            mask = self._annotations.mask(annotation)
            assert mask is not None
            return torch.from_numpy(resize_mask(mask, self._size))

        return self._kept(self._masks, annotation.ref_id, read)

    def _candidates_of(self, annotation: Annotation) -> Tensor:
        if self._view is None:
            return torch.empty(0, (self._size**2 + 7) // 8, dtype=torch.uint8)
        view = self._view
        return self._kept(self._candidates, annotation.image_id, lambda: torch.from_numpy(view[annotation.image_id]))

    def _kept(self, of_ids: dict[int, Tensor], number: int, read: Callable[[], Tensor]) -> Tensor:
        found = of_ids.get(number)
        if found is None:
            found = read()
            if not self.keeps:
                of_ids.clear()
            of_ids[number] = found
        return found


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples; their candidates lie one after another, and so do their further expressions."""
    counts = torch.tensor([len(sample.candidates) for sample in samples])
    num_others = torch.tensor([len(sample.other_input_ids) for sample in samples])
    return Batch(
        images=torch.stack([sample.image for sample in samples]),
        masks=torch.stack([sample.mask for sample in samples]),
        has_mask=torch.tensor([sample.has_mask for sample in samples]),
        input_ids=torch.stack([sample.input_ids for sample in samples]),
        attention_mask=torch.stack([sample.attention_mask for sample in samples]),
        other_input_ids=torch.cat([sample.other_input_ids for sample in samples]),
        other_attention_mask=torch.cat([sample.other_attention_mask for sample in samples]),
        other_of=torch.arange(len(samples)).repeat_interleave(num_others),
        candidates=torch.cat([sample.candidates for sample in samples]),
        offsets=torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)]),
        ref_ids=torch.tensor([sample.ref_id for sample in samples], dtype=torch.int64),
        image_ids=torch.tensor([sample.image_id for sample in samples], dtype=torch.int64),
        ann_ids=torch.tensor([sample.ann_id for sample in samples], dtype=torch.int64),
    )
