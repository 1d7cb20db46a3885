"""A LAVT of a few thousand weights and a batch for it, which tests of several modules share."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, CLIPTokenizer

from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO, LavtConfig

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


@pytest.fixture
def clipseg(tmp_path: Path) -> Path:
    """A CLIPSeg of a few thousand weights with its tokenizer, as transformers writes them."""
    torch.manual_seed(6)
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPSegConfig(
        text_config=small
        | {"vocab_size": 30, "max_position_embeddings": 12, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2},
        vision_config=small | {"image_size": 32, "patch_size": 8},
        projection_dim=8,
        extract_layers=[0, 1],
        reduce_dim=8,
        decoder_num_attention_heads=2,
        decoder_intermediate_size=16,
    )
    CLIPSegForImageSegmentation(config).save_pretrained(tmp_path / "clipseg")
    words = ["<|unk|>", "<|startoftext|>", "<|endoftext|>", *"abcdefghi", *(f"{letter}</w>" for letter in "abcdefghi")]
    tokenizer = CLIPTokenizer(
        vocab={word: number for number, word in enumerate(words)},
        merges=[],
        unk_token="<|unk|>",
        pad_token="<|endoftext|>",
    )
    tokenizer.save_pretrained(tmp_path / "clipseg")
    return tmp_path / "clipseg"
