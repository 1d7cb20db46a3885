from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    BertConfig,
    BertModel,
    SwinConfig,
    SwinModel,
)

from semires.stages.data.errors import InputError
from semires.stages.train.models import build
from semires.stages.train.models.build import build_model, image_size_of, weights_folder
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO, LAVT_SIZES, LavtConfig
from semires.stages.train.models.tokenization import build_vocab

TINY = LavtConfig(
    image_size=64,
    swin_embed_dim=8,
    swin_depths=(1, 1, 1, 1),
    swin_heads=(1, 1, 1, 1),
    swin_window=4,
    drop_path=0.0,
    text_hidden=16,
    text_layers=1,
    text_heads=1,
    text_intermediate=16,
    text_positions=32,
    vocab_size=200,
    decoder_width=8,
    trained_text_layers=1,
    train_text_embeddings=False,
)


@pytest.fixture
def backbones(tmp_path: Path) -> tuple[Path, Path]:
    """Folders as transformers writes them, in `TINY`'s sizes."""
    torch.manual_seed(5)
    swin_config = SwinConfig(
        embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4, patch_size=4, drop_path_rate=0.0
    )
    SwinModel(swin_config).save_pretrained(tmp_path / "swin")
    bert_config = BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=16,
        max_position_embeddings=32,
    )
    BertModel(bert_config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(build_vocab(["left", "girl"])) + "\n")
    return tmp_path / "swin", tmp_path / "bert"


def test_model_names__every_one() -> None:
    assert set(build.SWIN_SOURCES) | {"nano", "clipseg", "clipseg-nano"} == set(build.MODEL_NAMES)
    with pytest.raises(
        InputError, match=r"expected base, tiny, .*, clipseg, clipseg-nano or PACKAGE\.MODULE:FACTORY, found 'huge'"
    ):
        build_model("huge", pretrained=False)


def test_build_model__nano_has_the_shipped_trunk() -> None:
    lavt = build_model("nano", pretrained=True)
    assert isinstance(lavt, Lavt)
    assert lavt.config == LAVT_NANO
    assert lavt.training
    assert lavt.tokenizer.vocab_size <= LAVT_NANO.vocab_size
    shipped = load_file(weights_folder() / "nano_swin.safetensors")
    own = lavt.visual.state_dict()
    assert own.keys() == shipped.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in shipped.items())


def test_build_model__random_weights_need_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nano_vocab.txt").write_bytes((weights_folder() / "nano_vocab.txt").read_bytes())
    monkeypatch.setattr(build, "weights_folder", lambda: tmp_path)
    torch.manual_seed(0)
    first = build_model("nano", pretrained=False)
    torch.manual_seed(0)
    second = build_model("nano", pretrained=False)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    with pytest.raises(InputError, match=r"nano_swin\.safetensors"):
        build_model("nano", pretrained=True)


def test_build_model__base_reads_the_folders_named(
    backbones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAVT_SIZES, "base", TINY)
    swin, bert = backbones
    lavt = build_model("base", pretrained=True, swin=str(swin), bert=str(bert))
    assert isinstance(lavt, Lavt)
    words = load_file(bert / "model.safetensors")["embeddings.word_embeddings.weight"]
    assert torch.equal(lavt.text.bert.embeddings.word_embeddings.weight, words)
    patches = load_file(swin / "model.safetensors")["embeddings.patch_embeddings.projection.weight"]
    assert torch.equal(lavt.visual.embeddings.patch_embeddings.projection.weight, patches)
    assert lavt.tokenizer.tokens("left girl") == ["left", "girl"]


def test_build_model__other_window_and_image_size(
    backbones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAVT_SIZES, "small", TINY)
    lavt = build_model("small", pretrained=False, bert=str(backbones[1]), window=3, image_size=80)
    assert isinstance(lavt, Lavt)
    assert (lavt.config.swin_window, lavt.image_size) == (3, 80)
    assert image_size_of("small", image_size=80) == 80
    assert image_size_of("small") == TINY.image_size


def test_build_model__missing_backbone_named(
    backbones: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(LAVT_SIZES, "base", TINY)
    _, bert = backbones
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty") as caught:
        build_model("base", pretrained=True, swin=str(tmp_path / "empty"), bert=str(bert))
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="expected a BERT"):
        build_model("base", pretrained=False, swin="swin", bert=str(tmp_path / "empty"))


def test_build_model__vocabulary_too_large(backbones: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    _, bert = backbones
    with (bert / "vocab.txt").open("a") as file:
        file.writelines(f"word{n}\n" for n in range(200))
    monkeypatch.setitem(LAVT_SIZES, "base", TINY)
    with pytest.raises(InputError, match=r"at most 200 tokens for LAVT-base, found \d+"):
        build_model("base", pretrained=False, bert=str(bert))


def test_build_model__gradient_checkpointing_reaches_the_network() -> None:
    for chosen in (False, True):
        lavt = build_model("nano", pretrained=False, gradient_checkpointing=chosen)
        assert isinstance(lavt, Lavt)
        assert lavt.gradient_checkpointing is chosen


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 7}, "--window"),
        ({"image_size": 64}, "--image-size"),
        ({"gradient_checkpointing": True}, "--grad-checkpointing"),
    ],
)
def test_build_model__options_that_a_model_does_not_have(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build_model("some.module:factory", pretrained=False, **options)
