import json

import pytest
import torch
from transformers import SwinForImageClassification, SwinModel

from semires.stages.data.errors import InputError
from semires.stages.train.models.checkpoints.reading import read_checkpoint
from semires.stages.train.models.checkpoints.swin import resize_table
from semires.stages.train.models.checkpoints.swin_folder import resize_swin, save_swin


@pytest.fixture
def swin_file(swin_tensors, tmp_path):
    """Write a Swin checkpoint of these tensors, by default a whole one."""

    def write(tensors=None):
        torch.save({"model": swin_tensors() if tensors is None else tensors}, tmp_path / "swin.pth")
        return tmp_path / "swin.pth"

    return write


def test_save_swin__transformers_reads_it(swin_tensors, swin_file, tmp_path):
    save_swin(read_checkpoint(swin_file()), tmp_path / "swin")
    model, info = SwinForImageClassification.from_pretrained(tmp_path / "swin", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert torch.equal(model.classifier.weight, swin_tensors()["head.weight"])
    assert torch.equal(model.swin.layernorm.bias, swin_tensors()["norm.bias"])
    assert torch.equal(
        model.swin.encoder.layers[2].blocks[1].mlp.fc1.weight, swin_tensors()["layers.2.blocks.1.mlp.fc1.weight"]
    )
    assert (model.config.window_size, model.config.image_size) == (7, 224)


def test_save_swin__without_head_at_another_window(swin_tensors, swin_file, tmp_path):
    tensors = {name: tensor for name, tensor in swin_tensors().items() if not name.startswith("head")}
    save_swin(read_checkpoint(swin_file(tensors)), tmp_path / "swin", window=12)
    model = SwinModel.from_pretrained(tmp_path / "swin", add_pooling_layer=False)
    assert (
        model.encoder.layers[0].blocks[0].attention.relative_position_bias.relative_position_bias_table.shape[0] == 529
    )
    assert json.loads((tmp_path / "swin" / "config.json").read_text())["image_size"] == 384
    del tensors["norm.weight"], tensors["norm.bias"]
    with pytest.raises(InputError, match="expected Swin's last norm"):
        save_swin(read_checkpoint(swin_file(tensors)), tmp_path / "swin")


def test_resize_swin__with_and_without_classifier(swin_tensors, swin_file, tmp_path):
    for name, tensors in (
        ("whole", swin_tensors()),
        ("trunk", {name: tensor for name, tensor in swin_tensors().items() if not name.startswith("head")}),
    ):
        save_swin(read_checkpoint(swin_file(tensors)), tmp_path / name)
        resize_swin(tmp_path / name, tmp_path / f"{name}12", 12)
        save_swin(read_checkpoint(swin_file(tensors)), tmp_path / f"{name}12_at_once", window=12)
        found, expected = (tmp_path / f"{name}12{how}" / "model.safetensors" for how in ("", "_at_once"))
        assert found.read_bytes() == expected.read_bytes()
    model = SwinForImageClassification.from_pretrained(tmp_path / "whole12")
    table = swin_tensors()["layers.1.blocks.0.attn.relative_position_bias_table"]
    own = model.swin.encoder.layers[1].blocks[0].attention.relative_position_bias.relative_position_bias_table
    assert torch.equal(own, resize_table(table, 12))
    assert (model.config.window_size, model.config.image_size) == (12, 384)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="found no config"):
        resize_swin(tmp_path / "empty", tmp_path / "other", 12)
