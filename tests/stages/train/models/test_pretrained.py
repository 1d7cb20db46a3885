import copy
import dataclasses

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import BertForMaskedLM, SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
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
    other = make_lavt(dataclasses.replace(tiny_config, swin_window=2))
    SwinModel(other.visual.swin_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="expected a Swin with window_size 4, found 2"):
        load_swin(lavt, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lavt.state_dict().items())


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
