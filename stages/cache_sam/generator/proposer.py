"""What the generator asks of a model that proposes masks: the interface of SAM, its successors and a user's own."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor

Embedding: TypeAlias = tuple[Tensor, ...]
"""What an image is encoded to; of several images each tensor begins with their axis."""

Tokens: TypeAlias = tuple[Tensor, ...]
"""What prompts become; each tensor begins with their axis."""


class Decoded(Protocol):
    """A model's answer to P prompts: predicted IoU, and whatever it makes masks of."""

    @property
    def iou(self) -> Tensor:
        """float32 [P, M]: predicted IoU of each of a prompt's masks."""


class PromptedModel(ABC):
    """A promptable segmentation model on its device: an image is encoded once, then asked about many prompts.

    The generator calls, in this order: `load` and `encode` with images or crops; once an image `share`; for each batch
    of prompts `decode`, and `logits` of those masks whose predicted IoU passes. On a CPU several threads may do so at
    once. All of it runs under inference_mode. Axes: I images, S pixels of the model's side, P prompts, M masks a
    prompt, K masks, l low-resolution logits a side.
    """

    device: torch.device
    precision: str
    """In which precision it computes, one of settings.PRECISIONS; recorded in the manifest."""
    side: int
    """S: pixels of a side of the square that the model sees."""
    low_side: int
    """l: low-resolution logits of a side of the same square."""
    bytes_a_prompt: int
    """Bytes of the image tokens that the model keeps for a prompt while it decodes it; the size of batches on CPU."""
    compiled: bool = False
    """Whether `encode` and `decode` are handed to torch.compile."""
    stretches: bool = False
    """Whether an image fills the square, out of shape. Else its longer side does, and the rest is padding."""
    mask_threshold: float = 0.0
    """Logits above it are mask."""

    @abstractmethod
    def load(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """RGB images uint8 [H, W, 3] of any sizes, resized and normalized: float32 [I, 3, S, S] on the device."""

    @abstractmethod
    def encode(self, pixels: Tensor) -> Embedding:
        """Embeddings of what `load` returned; this is what torch.compile is given."""

    @abstractmethod
    def share(self, embedding: Embedding) -> Any:
        """Whatever all prompts on one image have in common, from its embedding (without the axis of images)."""

    @abstractmethod
    def decode(self, shared: Any, *tokens: Tensor) -> Decoded:
        """The answer to some prompts on one image; torch.compile is given this too."""

    @abstractmethod
    def logits(self, shared: Any, decoded: Any, masks_K2: Tensor, size: tuple[int, int]) -> Tensor:
        """Low-resolution logits of K masks, float32 [K, rows, columns] with at least `size` from the top left.

        `masks_K2` int64 [K, 2], on CPU: the prompt (into P) and which of its M masks.
        """

    def input_size(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of the model's square that an image of this size fills; zero where it is too narrow."""
        if self.stretches:
            return self.side, self.side
        rows, columns = ResizeLongestSide.get_preprocess_shape(height, width, self.side)
        return rows, columns


class Proposer(PromptedModel):
    """A model that is asked what lies at points; `embed` is called for each size of image, before `decode`."""

    @abstractmethod
    def embed(self, points_xy: Tensor, size: tuple[int, int]) -> Tokens:
        """Points, float64 [P, 2] in pixels of an image of `size` (height, width), as `decode` takes them.

        All that no image changes is computed here: it is kept for the next image of the size.
        """


class WordModel(PromptedModel):
    """A model that is asked for things by name, each word for all of its kind: M masks, with a score as `iou`."""

    @abstractmethod
    def embed_word(self, word: str) -> Tokens:
        """A word as `decode` takes it, P = 1; kept for the next image that is searched for it."""


class RefiningProposer(Proposer):
    """A proposer that can be asked again about its own masks, which `use_m2m` is for."""

    @abstractmethod
    def refine(self, shared: Any, logits: Tensor, *tokens: Tensor) -> tuple[Tensor, Tensor]:
        """K prompts asked again with a mask of their first answer, low-resolution logits float32 [K, l, l].

        Returns predicted IoU float32 [K] and low-resolution logits like those given, one mask a prompt.
        """
