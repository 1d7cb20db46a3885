import copy
import dataclasses
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import BertForMaskedLM, SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.lavt import (
    LAVT_BASE,
    LAVT_NANO,
    Lavt,
    LavtConfig,
    load_bert,
    load_swin,
    load_visual,
    parameter_groups,
    save_visual,
)

torch.set_num_threads(1)

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


def make_lavt(config: LavtConfig = TINY) -> Lavt:
    torch.manual_seed(0)
    return Lavt(config)


def make_batch(batch: int = 2, size: int = 48) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(1)
    mask = torch.zeros(batch, 20, dtype=torch.int64)
    for row in range(batch):
        mask[row, : 4 + row] = 1
    return torch.randn(batch, 3, size, size), torch.randint(5, 40, (batch, 20)) * mask, mask


@pytest.mark.parametrize(("batch", "size"), [(2, 48), (1, 48), (2, 33), (1, 90)])
@pytest.mark.parametrize("training", [True, False])
def test_forward__shape_at_any_size(batch, size, training):
    lavt = make_lavt().train(training)
    logits = lavt(*make_batch(batch, size))
    assert logits.shape == (batch, 2, size, size)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_forward__too_small_image():
    with pytest.raises(InputError, match="more than 32 pixels"):
        make_lavt()(*make_batch(1, 32))


@torch.no_grad()
def test_forward__is_language_aware_and_ignores_padding():
    lavt = make_lavt().eval()
    images, ids, mask = make_batch()
    logits = lavt(images, ids, mask)
    torch.testing.assert_close(lavt(images, torch.where(mask == 1, ids, 9), mask.bool()), logits)
    torch.testing.assert_close(lavt(images[1:], ids[1:], mask[1:]), logits[1:], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(lavt(images, ids.flip(0), mask.flip(0)), logits, atol=1e-4)


def test_forward__every_trained_parameter_gets_a_gradient():
    lavt = make_lavt()
    groups = parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5)
    lavt(*make_batch()).square().mean().backward()
    # DistributedDataParallel stops at a trained parameter that the loss does not reach.
    assert [name for name, p in lavt.named_parameters() if p.requires_grad and p.grad is None] == []
    assert all(p.requires_grad for group in groups for p in group["params"])


def test_copy__teacher_is_independent():
    lavt = make_lavt().eval()
    teacher = copy.deepcopy(lavt)
    batch = make_batch()
    before = teacher(*batch)
    nn.init.zeros_(lavt.decoder.classify.weight)
    assert torch.equal(teacher(*batch), before)


@pytest.mark.parametrize("config", [LAVT_BASE, LAVT_NANO, TINY])
def test_config__round_trip_through_json(config):
    assert LavtConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_config__defaults_may_be_missing():
    values = LAVT_NANO.to_dict()
    del values["max_tokens"]
    assert LavtConfig.from_dict(values) == LAVT_NANO


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"swin_windw": 4}, "found swin_windw"),
        ({"swin_window": "4"}, "expected swin_window as int"),
        ({"swin_window": True}, "expected swin_window as int"),
        ({"swin_depths": [1, 1, 2.0, 1]}, "expected swin_depths"),
        ({"swin_depths": [1, 1]}, "expected 4 numbers in swin_depths"),
        ({"drop_path": 1.0}, "expected drop_path"),
        ({"trained_text_layers": 3}, "expected trained_text_layers"),
        ({"max_tokens": 64}, "expected max_tokens"),
        ({"image_size": 32}, "expected image_size"),
    ],
)
def test_config__bad_values(change, message):
    with pytest.raises(InputError, match=message):
        LavtConfig.from_dict({**LAVT_NANO.to_dict(), **change})


def test_config__missing_key():
    values = LAVT_NANO.to_dict()
    del values["swin_window"]
    with pytest.raises(InputError, match="found no swin_window"):
        LavtConfig.from_dict(values)


@pytest.mark.parametrize("embeddings", [True, False])
def test_parameter_groups__each_parameter_once_or_frozen(embeddings):
    lavt = make_lavt(dataclasses.replace(TINY, train_text_embeddings=embeddings))
    groups = parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5, trunk_rate=0.1)
    assert [group["weight_decay"] for group in groups] == [0.01, 0.0, 0.01, 0.0]
    assert [group["lr"] for group in groups] == [5e-5 * 0.1, 5e-5 * 0.1, 5e-5, 5e-5]
    grouped = [id(p) for group in groups for p in group["params"]]
    assert len(grouped) == len(set(grouped))

    names = {id(p): name for name, p in lavt.named_parameters()}
    frozen = {name for p, name in names.items() if p not in set(grouped)}
    assert frozen == {name for name, p in lavt.named_parameters() if not p.requires_grad}
    prefixes = ("text.bert.encoder.layer.2.",) if embeddings else ("text.bert.encoder.layer.2.", "text.bert.embeddings")
    assert frozen == {name for name in names.values() if name.startswith(prefixes)}

    # LAVT's own rule, by name, for its backbone: trunk and fusion.
    backbone = {name for name in names.values() if name.startswith(("visual.", "fusion."))}
    expected = {name for name in backbone if "norm" in name or "relative_position_bias_table" in name}
    assert {names[id(p)] for group in groups[1::2] for p in group["params"]} == expected
    of_trunk = {name for name in names.values() if name.startswith("visual.")}
    assert {names[id(p)] for group in groups[:2] for p in group["params"]} == of_trunk
    torch.optim.AdamW(groups)


def test_base__sizes():
    with torch.device("meta"):
        lavt = Lavt(LAVT_BASE)
    assert [f.fusion.project_fused[0].weight.shape[0] for f in lavt.fusion] == [128, 256, 512, 1024]
    assert sum(p.numel() for p in lavt.visual.parameters()) == 86_878_584 - 2 * 1024  # Swin-B without its last norm
    assert sum(p.numel() for p in lavt.text.parameters()) == 108_891_648  # BERT-base without its pooler
    tables = [b.attention.relative_position_bias.relative_position_bias_table for b in lavt.visual.layers[2].blocks]
    assert [tuple(t.shape) for t in tables] == [(23 * 23, 16)] * 18
    parameter_groups(lavt, weight_decay=0.01, learning_rate=5e-5)
    assert [all(p.requires_grad for p in layer.parameters()) for layer in lavt.text.bert.encoder.layer] == (
        [True] * 10 + [False] * 2
    )


@torch.no_grad()
def test_load_swin__from_classifier(tmp_path):
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
def test_load_bert__from_the_published_layout(tmp_path):
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


def test_load__other_size_or_missing(tmp_path):
    lavt = make_lavt()
    before = copy.deepcopy(lavt.state_dict())
    for load in (load_swin, load_bert):
        with pytest.raises(InputError, match="found none that can be read"):
            load(lavt, tmp_path / "absent")
    with pytest.raises(InputError, match=r"found no config\.json"):
        load_bert(lavt, tmp_path)
    other = make_lavt(dataclasses.replace(TINY, swin_window=2))
    SwinModel(other.visual.swin_config).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="expected a Swin with window_size 4, found 2"):
        load_swin(lavt, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in lavt.state_dict().items())


def test_load_swin__weights_missing_or_no_safetensors(tmp_path):
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


def test_load_swin__unreachable_hub(monkeypatch):
    def unreachable(*_: object, **__: object) -> None:
        raise OSError("We couldn't connect to the hub\nand more lines")

    monkeypatch.setattr("semires.stages.train.models.lavt.SwinConfig.from_pretrained", unreachable)
    with pytest.raises(InputError) as caught:
        load_swin(make_lavt(), "somebody/some-swin")
    assert "somebody/some-swin" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_save_visual__loads_into_another_model(tmp_path):
    lavt, other = make_lavt().eval(), make_lavt().eval()
    for parameter in lavt.visual.parameters():
        nn.init.normal_(parameter, std=0.1)
    save_visual(lavt, tmp_path / "visual.safetensors")
    load_visual(other, tmp_path / "visual.safetensors")
    images = make_batch()[0]
    assert all(torch.equal(a, b) for a, b in zip(lavt.visual(images), other.visual(images), strict=True))
