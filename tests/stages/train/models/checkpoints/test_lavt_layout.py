import re

import pytest
import torch

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.lavt_layout import (
    lavt_config,
    lavt_pieces,
    optional_tensors,
    parse_heads,
    size_name,
)
from semires.stages.train.models.checkpoints.pieces import to_theirs
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_BASE, LAVT_LARGE, LAVT_SMALL, LAVT_TINY


def test_lavt_config__of_the_shapes(lavt_tensors):
    config = lavt_config(lavt_tensors(window=12), {}, "a.pth", text_heads=4)
    assert (config.swin_embed_dim, config.swin_depths, config.swin_heads) == (8, (1, 1, 2, 1), (1, 2, 4, 8))
    assert (config.swin_window, config.swin_patch, config.decoder_width) == (12, 4, 32)
    assert (config.text_hidden, config.text_layers, config.text_heads, config.text_intermediate) == (16, 2, 4, 32)
    assert (config.vocab_size, config.text_positions, config.max_tokens) == (200, 32, 20)
    assert (config.fusion_heads, config.fusion_dropout, config.image_size) == ((1, 1, 1, 1), 0.0, 480)
    assert (config.trained_text_layers, config.train_text_embeddings, config.drop_path) == (2, False, 0.3)


def test_lavt_config__of_the_arguments(lavt_tensors):
    arguments = {"mha": "4-4-4-4", "fusion_drop": 0.1, "img_size": 384}
    config = lavt_config(lavt_tensors(), arguments, "a.pth")
    assert (config.fusion_heads, config.fusion_dropout, config.image_size) == ((4, 4, 4, 4), 0.1, 384)
    assert config.text_heads == 1
    assert lavt_config(lavt_tensors(), arguments, "a.pth", fusion_heads=(2, 2, 2, 2)).fusion_heads == (2, 2, 2, 2)
    assert lavt_config(lavt_tensors(), {"mha": "", "img_size": None}, "a.pth").fusion_heads == (1, 1, 1, 1)


@pytest.mark.parametrize("text", ["", "4", "4-4-4", "4-4-4-4-4", "0-1-1-1", "a-b-c-d", "4,4,4,4", "4-4-4-4\n"])
def test_parse_heads__anything_else(text):
    with pytest.raises(InputError, match=re.escape(f"such as 4-4-4-4, found {text!r}")):
        parse_heads(text)


def test_lavt_config__cannot_be_told(lavt_tensors):
    tensors = lavt_tensors()
    without_bert = {name: tensor for name, tensor in tensors.items() if not name.startswith("text_encoder.")}
    with pytest.raises(InputError, match=r"expected BERT beside LAVT's model in a\.pth"):
        lavt_config(without_bert, {}, "a.pth")
    for name in ("classifier.conv1_1.weight", "text_encoder.embeddings.word_embeddings.weight"):
        with pytest.raises(InputError, match=rf"expected {re.escape(name)} with \d axes in a\.pth, found none"):
            lavt_config({other: tensor for other, tensor in tensors.items() if other != name}, {}, "a.pth")
    fewer = {name: tensor for name, tensor in tensors.items() if "layers.3." not in name}
    with pytest.raises(InputError, match="expected 4 numbers in swin_depths"):
        lavt_config(fewer, {}, "a.pth")


def test_size_name__of_the_four_sizes(lavt_tensors):
    for name, config in (("tiny", LAVT_TINY), ("small", LAVT_SMALL), ("base", LAVT_BASE), ("large", LAVT_LARGE)):
        assert size_name(config.resized(window=7)) == size_name(config.resized(window=12)) == name
        assert size_name(config.resized(window=8)) is None
    assert size_name(lavt_config(lavt_tensors(), {}, "a.pth")) is None


@pytest.mark.parametrize(
    "config", [LAVT_TINY, LAVT_SMALL, LAVT_BASE, LAVT_LARGE], ids=["tiny", "small", "base", "large"]
)
def test_lavt_pieces__of_the_four_sizes(lavt_tensors, config):
    """Names and shapes at full size, on the meta device."""
    with torch.device("meta"):
        state = Lavt(config).state_dict()
    tensors = to_theirs(lavt_pieces(config.swin_depths, state), state)
    assert lavt_config(tensors, {}, "a.pth") == config
    total = sum(tensor.numel() for tensor in tensors.values())
    assert total == sum(tensor.numel() for tensor in state.values())
    assert not tensors.keys() & optional_tensors(config).keys()
