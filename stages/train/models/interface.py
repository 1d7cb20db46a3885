"""What training, evaluation and prediction need of a RES model, whatever it is made of."""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from semires.stages.data.errors import InputError
from semires.stages.train.models.tokenization import Tokenizer


def by_decay(parameters: Iterable[nn.Parameter], *, weight_decay: float, learning_rate: float) -> list[dict[str, Any]]:
    """Two groups for AdamW of the parameters that take a gradient: matrices and kernels, which decay, and vectors."""
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return [
        {"params": [p for p in trained if p.ndim > 1], "weight_decay": weight_decay, "lr": learning_rate},
        {"params": [p for p in trained if p.ndim <= 1], "weight_decay": 0.0, "lr": learning_rate},
    ]


class ResModel(nn.Module, PyTorchModelHubMixin, ABC):
    """A network that segments what an expression means in an image.

    A model of one's own derives from this, sets `image_size` and `tokenizer` after `super().__init__()` and writes
    `forward`; the other methods have defaults that fit most networks. docs/own-model.md shows a complete one.

    The teacher is a deep copy of the student, so a model must be copyable; its weights are those of `state_dict`.
    """

    image_size: int
    """Side in pixels of the square images that it is trained and evaluated with."""
    tokenizer: Tokenizer
    """Makes `input_ids` and `attention_mask` of expressions; pickled to data-loader workers."""
    has_idle_parameters: bool = True
    """Whether a forward pass may leave out parameters that take gradients: of several GPUs each then looks for them in
    every step."""
    factory: str | None = None
    """The PACKAGE.MODULE:FACTORY that made it, by which its folder is opened again; None for a model of semires."""
    card: str | None = None
    """The model card of the folder that it was opened from."""

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
        return by_decay(self.parameters(), weight_decay=weight_decay, learning_rate=learning_rate)

    def text_modules(self) -> Iterable[nn.Module]:
        """The modules that read words, which burn-in may leave in evaluation mode (no dropout); none by default."""
        return ()

    def save_pretrained(self, save_directory: str | os.PathLike[str], **options: Any) -> str | None:
        """Write the folder that `from_pretrained` opens: weights, config, tokenizer and model card; see folder.py.

        options: `push_to_hub=True` pushes it as well, to `repo_id` or the folder's name, with the options of
        `push_to_hub`. A folder that holds a model is replaced; InputError for one that holds anything else.
        """
        from semires.stages.train.models.checkpoints.folder import save_model

        push, repo_id = options.pop("push_to_hub", False), options.pop("repo_id", None)
        # The mixin's own; the folder has a config and a card already.
        options.pop("config", None)
        options.pop("model_card_kwargs", None)
        save_model(self, save_directory)
        return self.push_to_hub(repo_id or os.path.basename(os.fspath(save_directory)), **options) if push else None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | os.PathLike[str], **hub_options: Any) -> Self:
        """The model of a folder that `save_pretrained` wrote, or of a name on the Hugging Face hub, in evaluation mode.

        hub_options: `revision`, `token`, `cache_dir`, `force_download`, `local_files_only`. Nothing else is read: no
        pre-trained backbone, and no hub for a folder. InputError where it cannot be had or is no `cls`.
        """
        from semires.stages.train.models.checkpoints.folder import open_model

        model = open_model(pretrained_model_name_or_path, **hub_options)
        if not isinstance(model, cls):
            raise InputError(
                f"expected a {cls.__name__}, found a {type(model).__name__} in {pretrained_model_name_or_path}: "
                f"open it with {type(model).__name__}.from_pretrained"
            )
        return model

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model's folder to the Hugging Face hub; returns the commit's URL.

        options: as of `huggingface_hub.ModelHubMixin.push_to_hub`, such as `private` and `token`. InputError where it
        cannot be pushed.
        """
        from semires.stages.train.models.checkpoints.hub import pushing

        with pushing(repo_id):
            return super().push_to_hub(repo_id, **options)
