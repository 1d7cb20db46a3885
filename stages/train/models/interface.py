"""What training, evaluation and prediction need of a RES model, whatever it is made of."""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from semires.stages.train.models.tokenization import Tokenizer


class ResModel(nn.Module, ABC):
    """A network that segments what an expression means in an image.

    A model of one's own derives from this, sets `image_size` and `tokenizer` after `super().__init__()` and writes
    `forward`; the other methods have defaults that fit most networks. docs/own-model.md shows a complete one.

    The teacher is a deep copy of the student, so a model must be copyable; its weights are those of `state_dict`.
    """

    image_size: int
    """Side in pixels of the square images that it is trained and evaluated with."""
    tokenizer: Tokenizer
    """Makes `input_ids` and `attention_mask` of expressions; pickled to data-loader workers."""

    @abstractmethod
    def forward(self, images: Tensor, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Logits float [B, 2, H, W] (background, referent) at the size of the images.

        images: float32 [B, 3, H, W], normalised with ImageNet's statistics (normalization.py). input_ids,
        attention_mask: int64 [B, T] as `tokenizer` makes them, the mask 1 at tokens and 0 at padding.
        """

    def parameter_groups(
        self, *, weight_decay: float, learning_rate: float, trunk_rate: float = 1.0
    ) -> list[dict[str, Any]]:
        """Groups for AdamW: dicts with `params`, `weight_decay` and `lr`, in an order that never changes.

        Here: every parameter that takes a gradient, at `learning_rate`; matrices and kernels decay, vectors (norms,
        biases) do not. `trunk_rate` is the share of the rate for a pre-trained visual trunk, of a model that has one.
        """
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return [
            {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "lr": learning_rate},
            {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr": learning_rate},
        ]

    def text_modules(self) -> Iterable[nn.Module]:
        """The modules that read words, which burn-in may leave in evaluation mode (no dropout); none by default."""
        return ()
