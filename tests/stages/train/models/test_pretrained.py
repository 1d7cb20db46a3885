import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertForMaskedLM, SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.swin import resize_table
from semires.stages.train.models.pretrained import load_bert, load_swin


@torch.no_grad()
def test_load_swin__from_classifier(make_lavt, make_batch, tmp_path):
    lavt = make_lavt().eval()
    other = SwinForImageClassification(lavt.visual.swin_config).eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    other.save_pretrained(tmp_path)
    load_swin(lavt, tmp_path)
    images = make_batch()[0]
    outputs = other.swin(
        images, always_partition=True, output_hidden_states=True, output_hidden_states_before_downsampling=True
    )
    for found, expected in zip(lavt.visual(images), outputs.reshaped_hidden_states[1:], strict=True):
        torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_load_bert__from_the_published_layout(make_lavt, make_batch, tmp_path):
    lavt = make_lavt().eval()
    other = BertForMaskedLM(lavt.text.bert_config).eval()
    for parameter in other.parameters():
        nn.init.normal_(parameter, std=0.1)
    other.save_pretrained(tmp_path)
    # BERT's published files still name the norms' weights as TensorFlow did.
    path = tmp_path / "model.safetensors"
    renames = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    weights = load_file(path)
    for new, old in renames.items():
        weights = {name.replace(new, old): tensor for name, tensor in weights.items()}
    save_file(weights, path, metadata={"format": "pt"})

    load_bert(lavt, tmp_path)
    _, ids, mask = make_batch()
    expected = other.bert(input_ids=ids, attention_mask=mask).last_hidden_state
    torch.testing.assert_close(lavt.text(ids, mask), expected)


def test_load__other_size_or_missing(make_lavt, tiny_config, tmp_path):
    lavt = make_lavt()
    before = copy.deepcopy(lavt.state_dict())
    for load in (load_swin, load_bert):
        with pytest.raises(InputError, match="found none that can be read"):
            load(lavt, tmp_path / "absent")
    with pytest.raises(InputError, match=r"found no config\.json"):
        load_bert(lavt, tmp_path)
    other = make_lavt(dataclasses.replace(tiny_config, swin_depths=(1, 1, 1, 1), swin_window=2))
    SwinModel(other.visual.swin_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"expected a Swin with depths \[1, 1, 2, 1\], found \[1, 1, 1, 1\]"):
        load_swin(lavt, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lavt.state_dict().items())


def test_load_swin__of_another_window(make_lavt, tiny_config, tmp_path):
    other = make_lavt(dataclasses.replace(tiny_config, swin_window=7))
    SwinModel(other.visual.swin_config).save_pretrained(tmp_path)
    theirs = load_file(tmp_path / "model.safetensors")
    lavt = make_lavt()
    load_swin(lavt, tmp_path)
    own = lavt.visual.layers[1].blocks[0].attention
    table = theirs["encoder.layers.1.blocks.0.attention.self.relative_position_bias_table"]
    assert torch.equal(own.relative_position_bias.relative_position_bias_table, resize_table(table, 4))
    assert torch.equal(own.o_proj.weight, theirs["encoder.layers.1.blocks.0.attention.output.dense.weight"])


@pytest.mark.parametrize("window", [4, 7])
def test_load_swin__microsofts_file(make_lavt, swin_tensors, tmp_path, window):
    torch.save({"model": swin_tensors(window=window)}, tmp_path / "swin.pth")
    lavt = make_lavt()
    load_swin(lavt, str(tmp_path / "swin.pth"))
    own = lavt.visual.layers[3].blocks[0]
    table = swin_tensors(window=window)["layers.3.blocks.0.attn.relative_position_bias_table"]
    assert torch.equal(own.attention.relative_position_bias.relative_position_bias_table, resize_table(table, 4))
    assert torch.equal(own.mlp.fc2.bias, swin_tensors(window=window)["layers.3.blocks.0.mlp.fc2.bias"])


def test_load_swin__file_of_another_size(make_lavt, swin_tensors, tmp_path):
    torch.save({"model": swin_tensors(depths=(1, 1, 1, 1))}, tmp_path / "swin.pth")
    with pytest.raises(InputError, match=r"expected a Swin with depths \[1, 1, 2, 1\], found \[1, 1, 1, 1\] in .*pth"):
        load_swin(make_lavt(), tmp_path / "swin.pth")


def test_load__another_networks_folder(make_lavt, tmp_path):
    """A Swin's folder is no BERT, nor is a folder of ours with a config.json of its own."""
    lavt = make_lavt()
    SwinModel(lavt.visual.swin_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"expected a BERT .*found 'swin'"):
        load_bert(lavt, tmp_path)
    (tmp_path / "config.json").write_text('{"format": "semires", "model": "lavt"}')
    with pytest.raises(InputError, match=r"expected a BERT .*found None"):
        load_bert(lavt, tmp_path)


def test_load_swin__weights_missing_or_no_safetensors(make_lavt, tmp_path):
    lavt = make_lavt()
    SwinModel(lavt.visual.swin_config).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    del weights["embeddings.norm.weight"]
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"1 missing, e\.g\. embeddings\.norm\.weight"):
        load_swin(lavt, tmp_path)
    path.unlink()
    torch.save(weights, tmp_path / "pytorch_model.bin")
    with pytest.raises(InputError, match="found none that can be read"):
        load_swin(lavt, tmp_path)


def test_load_swin__unreachable_hub(make_lavt, monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr("semires.stages.train.models.pretrained.SwinConfig.from_pretrained", unreachable)
    with pytest.raises(InputError) as caught:
        load_swin(make_lavt(), "somebody/some-swin")
    assert "somebody/some-swin" in str(caught.value)
    assert "\n" not in str(caught.value)
