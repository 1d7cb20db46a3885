"""A LAVT of a few thousand weights and a batch for it, which tests of several modules share."""

import dataclasses
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt_config import LAVT_NANO, LavtConfig

TINY = dataclasses.replace(
    LAVT_NANO,
    image_size=48,
    swin_embed_dim=8,
    text_hidden=16,
    text_intermediate=32,
    text_layers=3,
    text_positions=20,
    trained_text_layers=2,
    train_text_embeddings=False,
    vocab_size=40,
    decoder_width=8,
)


@pytest.fixture(scope="session")
def tiny_config() -> LavtConfig:
    return TINY


@pytest.fixture(scope="session")
def make_lavt() -> Callable[..., Lavt]:
    """A LAVT of `tiny_config`, or of another, with the same random weights each time."""

    def make(config: LavtConfig = TINY) -> Lavt:
        torch.manual_seed(0)
        return Lavt(config)

    return make


@pytest.fixture(scope="session")
def make_batch() -> Callable[..., tuple[Tensor, Tensor, Tensor]]:
    """Images, input_ids and attention_mask, the same each time; row b has 4 + b tokens."""

    def make(batch: int = 2, size: int = 48) -> tuple[Tensor, Tensor, Tensor]:
        torch.manual_seed(1)
        mask = torch.zeros(batch, 20, dtype=torch.int64)
        for row in range(batch):
            mask[row, : 4 + row] = 1
        return torch.randn(batch, 3, size, size), torch.randint(5, 40, (batch, 20)) * mask, mask

    return make
