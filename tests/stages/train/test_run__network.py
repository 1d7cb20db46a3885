"""A run keeps its network and vocabulary: the folders that its backbones came from may go."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel, SwinConfig, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.data.refer import ReferDataset
from semires.stages.train.config import TrainConfig
from semires.stages.train.models.lavt import Lavt
from semires.stages.train.models.lavt.config import LAVT_NANO, LAVT_SIZES
from semires.stages.train.models.tokenization import build_vocab
from semires.stages.train.run import starting_model, train_run
from semires.stages.train.run_folder import RunFolder

CPU = torch.device("cpu")
WORDS = ["left", "right", "small", "red"]
SMALL = dataclasses.replace(
    LAVT_NANO,
    **{"image_size": 64, "swin_embed_dim": 8, "swin_depths": (1, 1, 1, 1), "swin_heads": (1, 1, 1, 1)},
    **{"swin_window": 4, "text_hidden": 16, "text_layers": 1, "text_heads": 1, "text_intermediate": 16},
    **{"text_positions": 32, "vocab_size": 200, "decoder_width": 8, "trained_text_layers": 1},
)


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nano_config: Callable[..., TrainConfig]) -> TrainConfig:
    """Settings of a small LAVT whose backbones lie in two folders of the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(LAVT_SIZES, "tiny", SMALL)
    torch.manual_seed(5)
    sizes = {"embed_dim": 8, "depths": [1, 1, 1, 1], "num_heads": [1, 1, 1, 1], "window_size": 4, "patch_size": 4}
    SwinModel(SwinConfig(**sizes)).save_pretrained("swin")
    sizes = {"vocab_size": 200, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 1}
    BertModel(BertConfig(**sizes, intermediate_size=16, max_position_embeddings=32)).save_pretrained("bert")
    Path("bert", "vocab.txt").write_text("\n".join(build_vocab(WORDS)) + "\n", encoding="utf-8")
    return nano_config(model="tiny", swin="swin", bert="bert", method="baseline", num_evaluations=1)


def move_away(*folders: str) -> None:
    for folder in folders:
        Path(folder).rename(f"{folder} elsewhere")


def test_run__is_read_and_starts_others_without_its_backbones(
    config: TrainConfig, refshapes: ReferDataset, tmp_path: Path
) -> None:
    train_run(config.burn_in(), refshapes, tmp_path / "one", CPU)
    assert sorted(path.name for path in (tmp_path / "one" / "model").iterdir()) == [
        *("config.json", "tokenizer.json", "tokenizer_config.json"),
    ]
    _, before = RunFolder(tmp_path / "one").load_model()
    move_away("swin", "bert")
    _, model = RunFolder(tmp_path / "one").load_model()
    assert isinstance(model, Lavt)
    assert model.tokenizer.tokens("left small boat") == ["left", "small", "b", "##o", "##a", "##t"]
    assert model.tokenizer.max_tokens == before.tokenizer.max_tokens
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    train_run(config, refshapes, tmp_path / "two", CPU, burn_in=tmp_path / "one")
    checkpointed = dataclasses.replace(config, gradient_checkpointing=True)
    started = starting_model(checkpointed, RunFolder(tmp_path / "two"), tmp_path / "one")
    assert started.training
    assert started.gradient_checkpointing is True
    assert RunFolder(tmp_path / "two").load_model()[1].tokenizer.tokens("red") == ["red"]


def test_run__goes_on_without_its_backbones(config: TrainConfig, refshapes: ReferDataset, tmp_path: Path) -> None:
    whole = train_run(config.burn_in(), refshapes, tmp_path / "whole", CPU)

    def stop(what: str, done: int, total: int) -> None:
        if (what, done) == ("supervised", 3):
            raise KeyboardInterrupt

    always = dataclasses.replace(config.burn_in(), save_minutes=0)
    with pytest.raises(KeyboardInterrupt):
        train_run(always, refshapes, tmp_path / "cut", CPU, on_progress=stop)
    # The same folders, named otherwise.
    absolute = dataclasses.replace(always, swin=str(tmp_path / "swin"), bert="./bert")
    move_away("swin", "bert")
    found = train_run(absolute, refshapes, tmp_path / "cut", CPU)
    assert found["val_oiou"] == whole["val_oiou"]
    best = (tmp_path / "whole" / "best.safetensors").read_bytes()
    assert (tmp_path / "cut" / "best.safetensors").read_bytes() == best
    with pytest.raises(InputError, match="a run with bert 'bert', asked for 'bert elsewhere'"):
        train_run(dataclasses.replace(always, bert="bert elsewhere"), refshapes, tmp_path / "cut", CPU)


def test_starting_model__before_the_first_state_the_backbones_are_read(config: TrainConfig, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "one")
    folder.start(config.burn_in(), [1])
    model = starting_model(config.burn_in(), folder, None)
    folder.keep_network(model)
    again = starting_model(config.burn_in(), folder, None)
    assert torch.equal(
        again.state_dict()["text.bert.embeddings.word_embeddings.weight"][1:2],
        (model.state_dict()["text.bert.embeddings.word_embeddings.weight"][1:2]),
    )
    move_away("bert")
    with pytest.raises(InputError, match="expected a BERT"):
        starting_model(config.burn_in(), folder, None)


def test_starting_model__of_a_run_whose_own_burn_in_is_done_the_backbones_are_not_asked_for(
    config: TrainConfig, refshapes: ReferDataset, tmp_path: Path
) -> None:
    train_run(config.burn_in(), refshapes, tmp_path / "one" / "burn-in", CPU)
    move_away("swin", "bert")
    model = starting_model(config, RunFolder(tmp_path / "one"), None)
    assert model.tokenizer.tokens("red") == ["red"]
