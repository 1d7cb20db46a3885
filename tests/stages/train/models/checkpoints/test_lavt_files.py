import argparse

import pytest
import torch
from transformers import BertConfig, BertModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.folder import open_model, save_model
from semires.stages.train.models.checkpoints.lavt_files import lavt_of_checkpoint, save_lavt
from semires.stages.train.models.checkpoints.reading import read_checkpoint
from semires.stages.train.models.tokenization import build_vocab

BERT = "text_encoder."


@pytest.fixture
def bert(tmp_path):
    """A BERT folder of the sizes of `lavt_tensors`, with four attention heads."""
    config = BertConfig(
        vocab_size=200,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=32,
    )
    BertModel(config).save_pretrained(tmp_path / "bert")
    (tmp_path / "bert" / "vocab.txt").write_text("\n".join(build_vocab(["left", "girl"])) + "\n")
    return tmp_path / "bert"


@pytest.fixture
def checkpoint(tmp_path):
    """Write a checkpoint file in LAVT's two layouts and read it."""

    def write(tensors, *, one=False, parallel=False, legacy=False, bare=False, **others):
        model = {name: tensor for name, tensor in tensors.items() if one or not name.startswith(BERT)}
        text = {name.removeprefix(BERT): tensor for name, tensor in tensors.items() if name.startswith(BERT)}
        content = {"model": model} if one else {"model": model, "bert_model": text}
        if parallel:
            content = {part: {f"module.{n}": t for n, t in state.items()} for part, state in content.items()}
        content = content["model"] if bare else content | others
        torch.save(content, tmp_path / "source.pth", _use_new_zipfile_serialization=not legacy)
        return read_checkpoint(tmp_path / "source.pth")

    return write


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert torch.equal(found[name], tensor), name


def test_lavt_of_checkpoint__every_tensor_in_its_place(lavt_tensors, checkpoint, bert):
    tensors = lavt_tensors()
    lavt = lavt_of_checkpoint(checkpoint(tensors), bert)
    assert not lavt.training
    assert lavt.tokenizer.tokens("left girl") == ["left", "girl"]
    assert not lavt.tokenizer.keep_sep
    assert lavt.config.text_heads == 4
    fusion, block = lavt.fusion[1], lavt.visual.layers[2].blocks[1]
    at = "backbone.layers.1.fusion"
    for module, name in (
        (fusion.fusion.project_visual[0], f"{at}.vis_project.0"),
        (fusion.fusion.attention.query, f"{at}.image_lang_att.f_query.0"),
        (fusion.fusion.attention.key, f"{at}.image_lang_att.f_key.0"),
        (fusion.fusion.attention.value, f"{at}.image_lang_att.f_value.0"),
        (fusion.fusion.attention.output, f"{at}.image_lang_att.W.0"),
        (fusion.fusion.project_fused[0], f"{at}.project_mm.0"),
    ):
        assert torch.equal(module.weight, tensors[f"{name}.weight"][:, :, 0])
        assert torch.equal(module.bias, tensors[f"{name}.bias"])
    for module, name in (
        (fusion.gate.gate[0], "backbone.layers.1.res_gate.0"),
        (fusion.gate.gate[2], "backbone.layers.1.res_gate.2"),
        (fusion.norm, "backbone.norm1"),
        (block.layernorm_after, "backbone.layers.2.blocks.1.norm2"),
        (block.attention.o_proj, "backbone.layers.2.blocks.1.attn.proj"),
        (lavt.visual.layers[0].downsample.reduction, "backbone.layers.0.downsample.reduction"),
        (lavt.decoder.levels[0][0], "classifier.conv1_4"),
        (lavt.decoder.levels[0][4], "classifier.bn2_4"),
        (lavt.decoder.levels[2][3], "classifier.conv2_2"),
        (lavt.decoder.levels[2][1], "classifier.bn1_2"),
        (lavt.decoder.classify, "classifier.conv1_1"),
        (lavt.text.bert.encoder.layer[1].output.LayerNorm, f"{BERT}encoder.layer.1.output.LayerNorm"),
    ):
        assert torch.equal(module.weight, tensors[f"{name}.weight"])
        if f"{name}.bias" in tensors:
            assert torch.equal(module.bias, tensors[f"{name}.bias"])
    assert torch.equal(lavt.decoder.levels[1][4].running_var, tensors["classifier.bn2_3.running_var"])
    assert lavt.decoder.levels[1][4].num_batches_tracked == 1234


VARIANTS = {
    "window 7": {},
    "window 12": {"window": 12},
    "lavt-one": {"one": True},
    "module.": {"parallel": True},
    "module. in lavt-one": {"parallel": True, "one": True},
    "bare": {"one": True, "bare": True},
    "legacy": {"legacy": True},
    "heads": {"args": argparse.Namespace(mha="4-4-4-4", fusion_drop=0.1), "epoch": 39},
    "pooler": {"extra": {"pooler.dense.weight": torch.randn(16, 16), "pooler.dense.bias": torch.randn(16)}},
    "position_ids": {"extra": {"embeddings.position_ids": torch.arange(32)[None]}},
    "no index": {"without": "relative_position_index"},
    "no last gate": {"without": "layers.3.res_gate"},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_save_lavt__there_and_back_is_bit_equal(lavt_tensors, checkpoint, bert, tmp_path, variant):
    options = dict(VARIANTS[variant])
    sizes = {"window": options.pop("window", 7)}
    extra = {BERT + name: tensor for name, tensor in options.pop("extra", {}).items()}
    without = options.pop("without", "nothing")
    tensors = {name: t for name, t in (lavt_tensors(**sizes) | extra).items() if without not in name}
    lavt = lavt_of_checkpoint(checkpoint(tensors, **options), bert)
    if "args" in options:
        assert (lavt.config.fusion_heads, lavt.config.fusion_dropout) == ((4, 4, 4, 4), 0.1)
        assert lavt.origin.epoch == 39
    assert lavt.origin.layout == ("lavt-one" if options.get("one") else "lavt")
    save_model(lavt, tmp_path / "model")
    opened = open_model(tmp_path / "model")
    assert opened.config == lavt.config
    long = opened.tokenizer(["left " * 30])[0][0]
    assert long.tolist() == [long[0], *[long[1]] * 19]  # no [SEP], as LAVT cuts it
    for one in (False, True):
        save_lavt(opened, tmp_path / "back.pth", one=one)
        content = torch.load(tmp_path / "back.pth", weights_only=True)
        assert list(content) == (["model"] if one else ["model", "bert_model"])
        assert all(type(state).__name__ == "OrderedDict" for state in content.values())
        found = content["model"] | {BERT + name: t for name, t in content.get("bert_model", {}).items()}
        assert_equal(found, tensors)


@torch.no_grad()
def test_lavt_of_checkpoint__index_of_an_averaged_teacher(lavt_tensors, checkpoint, tmp_path):
    """SemiRES averages the integer buffers and truncates: such an index is kept, used and written back."""
    tensors = lavt_tensors()
    name = "backbone.layers.0.blocks.0.attn.relative_position_index"
    damaged = tensors | {name: (tensors[name] * 0.996 + tensors[name] * (1 - 0.996)).long().clamp(min=0)}
    damaged[name][3, 5] -= 1
    lavt = lavt_of_checkpoint(checkpoint(damaged))
    assert lavt.origin.unread.keys() == {name, *(f"backbone.layers.3.res_gate.{number}.weight" for number in (0, 2))}
    bias = lavt.visual.layers[0].blocks[0].attention.relative_position_bias
    assert torch.equal(bias.relative_position_index.view(49, 49), damaged[name])
    plain = lavt_of_checkpoint(checkpoint(tensors))
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.equal(lavt.visual(images)[0], plain.visual(images)[0])
    save_lavt(lavt, tmp_path / "back.pth", one=True)
    assert_equal(torch.load(tmp_path / "back.pth", weights_only=True)["model"], damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"backbone.absolute_pos_embed": torch.zeros(1)}, r"1 unknown \(backbone\.absolute_pos_embed\)"),
        ({"classifier.bn1_3.bias": None}, r"1 missing \(classifier\.bn1_3\.bias\)"),
        (
            {"backbone.layers.0.fusion.vis_project.0.weight": torch.zeros(8, 8)},
            r"float32 \[8, 8\] instead of float32 \[8, 8, 1\]",
        ),
        ({"backbone.norm0.bias": torch.zeros(8).half()}, r"float16 \[8\] instead of float32 \[8\]"),
        ({"backbone.layers.3.res_gate.0.weight": torch.zeros(2, 2)}, r"float32 \[2, 2\] instead"),
        (
            {"backbone.layers.0.blocks.0.attn.relative_position_index": torch.full((49, 49), 169)},
            "expected int64 .* from 0 to 168",
        ),
    ],
)
def test_lavt_of_checkpoint__accounts_for_every_key(lavt_tensors, checkpoint, change, message):
    tensors = {name: tensor for name, tensor in (lavt_tensors() | change).items() if tensor is not None}
    with pytest.raises(InputError, match=message) as caught:
        lavt_of_checkpoint(checkpoint(tensors))
    assert "\n" not in str(caught.value)


def test_lavt_of_checkpoint__another_bert(lavt_tensors, checkpoint, bert, tmp_path):
    with pytest.raises(InputError, match=r"expected a BERT with num_hidden_layers 1, found 2 in"):
        lavt_of_checkpoint(checkpoint(lavt_tensors(layers=1)), bert)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="expected a BERT vocabulary in"):
        lavt_of_checkpoint(checkpoint(lavt_tensors()), tmp_path / "empty")
    (bert / "config.json").unlink()  # a folder may hold the vocabulary alone
    assert lavt_of_checkpoint(checkpoint(lavt_tensors()), bert).config.text_heads == 1
    with pytest.raises(InputError, match=r"expected a vocabulary of at most 50 tokens in .*--bert"):
        lavt_of_checkpoint(checkpoint(lavt_tensors(vocab=50)), bert)


def test_lavt_of_checkpoint__of_swin(swin_tensors, tmp_path):
    torch.save({"model": swin_tensors()}, tmp_path / "swin.pth")
    with pytest.raises(InputError, match="found one of Swin"):
        lavt_of_checkpoint(read_checkpoint(tmp_path / "swin.pth"))


def test_save_lavt__trained_here(make_lavt, lavt_tensors, tmp_path):
    """The keys of a checkpoint of LAVT's own training; its unused gate is zeros."""
    save_lavt(make_lavt(), tmp_path / "own.pth", one=True)
    state = torch.load(tmp_path / "own.pth", weights_only=True)["model"]
    assert state.keys() == lavt_tensors(layers=3).keys()
    assert not state["backbone.layers.3.res_gate.2.weight"].any()
    assert state["backbone.layers.2.res_gate.2.weight"].any()
    again = lavt_of_checkpoint(read_checkpoint(tmp_path / "own.pth"))
    assert_equal(again.state_dict(), make_lavt().state_dict())
